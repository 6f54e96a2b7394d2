// The layout of bf16 W for kernels that permute registers of 32 inputs, bf16_permute_avx512.cc.
//
// Columns stand in pairs of groups of 16, one float32 lane a column. A step serves 2 non-zeros of every column:
//
//   narrow step   positions [32 columns, 2], weights [32 columns, 2]; a window of 32 inputs, one permute
//   wide step     the same for a window of 64 inputs: a permute of two registers
//   plain step    weights [32 columns, 2] of two neighbouring inputs: no positions
//
// A pair is served by narrow steps that slide along the inputs (slide.h), by wide steps that do, or block by block of
// 64 inputs: each by wide steps, as many as its fullest column needs, or by plain steps. Whatever costs least.
#pragma once

#include <cstdint>
#include <vector>

#include "contract.h"
#include "scratch.h"
#include "weights.h"

namespace sparsify {

struct Bf16Stream {
  static constexpr int64_t kBlock = 64;         // inputs
  static constexpr int64_t kGroup = 16;         // columns
  static constexpr int64_t kPair = 2 * kGroup;  // columns
  static constexpr int64_t kWidth = 2 * kPair;  // numbers of the weights of a step, and of its positions
  static constexpr uint8_t kPlain = 0x80;

  enum class Kind : uint8_t { kBlocks, kNarrow, kWide };

  int64_t k, n, blocks, pairs;
  std::vector<Kind> kind;             // [pairs]
  std::vector<uint8_t> code;          // [pairs, blocks] wide steps of a block, or kPlain; for pairs that go by blocks
  std::vector<uint32_t> window;       // of steps that slide: the first input
  std::vector<int64_t> first_window;  // [pairs + 1] of a pair in `window`
  std::vector<int64_t> offset;        // [pairs + 1] of a pair in `data`
  Numbers<uint16_t> data;
  Aligned<float> bias;                // [pairs * 32], zeros behind the last column

  Bf16Stream(const Weights<uint16_t>& w, const std::vector<float>& given_bias);

  int64_t bytes() const {
    const auto starts = static_cast<int64_t>(window.size());
    return 2 * offset.back() + 4 * starts + pairs * (blocks + 17 + 4 * kPair);
  }

 private:
  bool add_dense(const Encoded& in);
  void add_pair(const Csc<uint16_t>& w, int64_t pair);
};

}  // namespace sparsify
