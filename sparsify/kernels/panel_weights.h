// Weights in the order in which a panel kernel reads them, for any ISA: columns in chunks, inputs in blocks; within a
// chunk block by block, within that column by column, within that in order of k. Packing only: compiled for no ISA in
// particular.
//
// A block of a panel, 128 inputs * 64 tokens * 4 bytes = 32 KB, stays in L1 while the 64 columns of a chunk use it;
// the chunk's partial sums, 64 * 64 * 4 = 16 KB, wait on the stack.
#pragma once

#include <cstdint>
#include <vector>

#include "contract.h"
#include "scratch.h"

namespace sparsify {

struct PanelWeights {
  static constexpr int64_t kTokens = 64, kBlock = 128, kChunk = 64;

  int64_t k, n, nnz, blocks, chunks;
  Aligned<float> value;         // [nnz]
  Aligned<uint8_t> row;         // [nnz] k within its block
  std::vector<uint8_t> count;   // [chunks, blocks, kChunk] non-zeros of a column in a block, at most 128
  std::vector<int64_t> offset;  // [chunks + 1] of a chunk in value and row
  std::vector<float> scale;     // [chunks * kChunk], zeros for float products
  std::vector<float> bias;      // [chunks * kChunk]

  int64_t size() const { return nnz * 5 + static_cast<int64_t>(count.size() + 8 * bias.size()); }
};

// T is float or int8_t.
template <class T>
PanelWeights pack_panel(const Csc<T>& w, const Epilogue& epilogue);

}  // namespace sparsify
