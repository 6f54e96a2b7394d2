// Weights in the order in which a panel kernel reads them, for any ISA: chunk of columns, block of inputs, column,
// non-zero. Packing only: compiled for no ISA in particular.
//
// A block of a panel, 128 inputs * 64 tokens * 4 bytes = 32 KB, stays in L1 while the 64 columns of a chunk use it;
// where few non-zeros would not pay for taking up a column so often, blocks are of 256. The chunk's partial sums,
// 64 * 64 * 4 = 16 KB, wait on the stack. Within a chunk and block the columns go by their number of non-zeros: the
// loop over these then ends unforeseen once for each number, not once for each column.
#pragma once

#include <cstdint>
#include <vector>

#include "contract.h"
#include "scratch.h"

namespace sparsify {

struct PanelWeights {
  static constexpr int64_t kTokens = 64, kChunk = 64;

  // The non-zeros of one column in one block.
  struct Run {
    uint16_t column;  // in its chunk
    uint16_t count;
  };

  int64_t k, n, nnz, block, blocks, chunks;
  Aligned<float> value;         // [nnz]
  Aligned<uint8_t> row;         // [nnz] k within its block
  Aligned<Run> run;             // [chunks, blocks, kChunk]
  std::vector<int64_t> offset;  // [chunks + 1] of a chunk in value and row
  std::vector<float> scale;     // [chunks * kChunk], zeros for float products
  std::vector<float> bias;      // [chunks * kChunk]

  int64_t size() const {
    constexpr auto kRun = static_cast<int64_t>(sizeof(Run)), kFloat = static_cast<int64_t>(sizeof(float));
    return nnz * (kFloat + 1) + chunks * kChunk * (blocks * kRun + 2 * kFloat);
  }
};

// T is float or int8_t.
template <class T>
PanelWeights pack_panel(const Csc<T>& w, const Epilogue& epilogue);

}  // namespace sparsify
