// int8 weights in the order in which a permute kernel reads them, for any ISA.
//
// Columns are taken in groups, one int32 lane a column; inputs in blocks that one permute can reach. A step serves
// 4 weights of every column of a group, those of column c in bytes 4c to 4c + 3:
//
//   permute step   positions in the block [4 columns], weights [4 columns]
//   plain step     weights [4 columns] of inputs 4i to 4i + 3 of the block, i = 0, 1, ...
//   extra step     what a plain step had to leave (see pairs_in_16_bits), behind all blocks of the group
//
// A group is served by permute steps that slide along the inputs (slide.h), or block by block: each by permute
// steps, as many as its fullest column needs, or by plain steps. Whatever costs the fewest instructions. This is packing
// only and compiled for no ISA in particular.
#pragma once

#include <cstdint>
#include <vector>

#include "contract.h"
#include "scratch.h"
#include "weights.h"

namespace sparsify {

struct Int8Layout {
  int64_t columns;   // of a group
  int64_t block;     // inputs, at most 64; a power of 2
  int permute_cost;  // instructions of a permute step, and of a plain one
  int plain_cost;
  int64_t hop;       // of windows that slide, in inputs; 0: hop_of_lines()
  // The kernel sums the products of bytes 2j and 2j + 1 in 16 bits (vpmaddubsw, which saturates). Then no pair may
  // leave them: with activations up to 255 that is so when its positive weights sum to at most 128, and its negative
  // ones to at least -128: 255 * 128 = 32,640 < 2^15. Permute steps choose their pairs so. A plain step chooses among
  // the three ways to pair 4 inputs, for all of its columns at once; where none does, it leaves w / 2 rounded to zero,
  // within +-64, to an extra step, and takes the rest, within +-64. Of normally distributed weights in 768 rows and 8
  // columns, 26 % of the steps do not fit paired as they stand, 7 % in no way. Only for blocks of 16.
  bool pairs_in_16_bits;
};

struct Int8Stream {
  static constexpr uint8_t kPlain = 0x80;  // bits 0 to 3: this plain step has an extra one
  static constexpr int kPairings = 3;      // of 4 inputs
  // Byte of input j of 4: neighbours are those that are paired, 0 with 1, 2 or 3.
  static constexpr uint8_t kPlace[kPairings][4] = {{0, 1, 2, 3}, {0, 2, 1, 3}, {0, 2, 3, 1}};

  Int8Layout layout;
  int64_t k, n, blocks, groups;
  std::vector<uint8_t> code;      // [groups, blocks] number of permute steps, or kPlain
  std::vector<int64_t> offset;    // [groups + 1] of a group in `bytes`
  Numbers<uint8_t> bytes;
  std::vector<uint32_t> window;       // of the steps of groups that slide: the first input
  std::vector<int64_t> first_window;  // [groups + 1] of a group in `window`; none: it goes block by block
  // With pairs_in_16_bits, of plain and extra steps: the first input, plus K rounded up to 64 for every pairing passed.
  std::vector<uint32_t> plain;
  std::vector<int64_t> first_plain;   // [groups + 1] of a group in `plain`
  Aligned<float> scale, bias;     // [groups * columns]
  Aligned<int32_t> column_sum;    // [groups * columns]

  int64_t windows(int64_t group) const { return first_window[group + 1] - first_window[group]; }
  int64_t size() const {
    const int64_t starts = first_window.back() + first_plain.back();
    return offset.back() + blocks * groups + 4 * starts + 12 * groups * layout.columns;
  }
};

Int8Stream pack_int8(const Weights<int8_t>& w, const Epilogue& epilogue, const Int8Layout& layout);

}  // namespace sparsify
