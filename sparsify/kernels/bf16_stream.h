// The layout of bf16 W for kernels that permute registers of 32 inputs, bf16_permute_avx512.cc.
//
// Columns stand in pairs of groups of 16, inputs in blocks of 64, the low and the high 32 of which fill a register
// each. For a pair and a block a column's non-zeros are dealt out to steps of two slots each. A step reads
//
//   low     the low register     |  positions 0 to 31, one permute
//   high    the high register    |
//   both    either               |  positions 0 to 63, a permute of two registers, which costs twice as much (Zen 4)
//   plain   two neighbouring inputs, the same for all columns: no positions, and then there are no other steps
//
// How many of each is chosen to cost least: columns differ in how their non-zeros spread over the halves of a block,
// and what is over after steps of one half goes to steps of both.
#pragma once

#include <cstdint>
#include <vector>

#include "contract.h"
#include "scratch.h"

namespace sparsify {

struct Bf16Steps {
  uint8_t low = 0, high = 0, both = 0, plain = 0;
};

struct Bf16Stream {
  static constexpr int64_t kBlock = 64;         // inputs
  static constexpr int64_t kGroup = 16;         // columns
  static constexpr int64_t kPair = 2 * kGroup;  // columns
  static constexpr int64_t kStep = 32;          // numbers of a register
  static constexpr uint8_t kPlain = 32;         // plain steps of a block

  int64_t k, n, blocks, pairs;
  std::vector<Bf16Steps> steps;   // [pairs, blocks]
  std::vector<int64_t> offset;    // [pairs * blocks + 1] into data
  Aligned<uint16_t> data;         // a step: `groups` times {positions [32], weights [32]}; plain: weights [32] only
  Aligned<float> bias;            // [pairs * 32], zeros behind the last column

  explicit Bf16Stream(const Csc<uint16_t>& w, const std::vector<float>& given_bias);
  int groups(int64_t pair) const { return n - pair * kPair > kGroup ? 2 : 1; }
  int64_t bytes() const;

 private:
  void count(const Csc<uint16_t>& w);
  void fill(const Csc<uint16_t>& w);
};

}  // namespace sparsify
