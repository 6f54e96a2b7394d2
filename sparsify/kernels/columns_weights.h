// Weights of COLUMNS as its kernels read them, for any ISA. Nothing here or in the kernels is proportional to K N: per
// weight 2 bytes of row (4 where K is beyond 65536), per column 2 bytes and what the epilogue holds. The values, in
// the order in which the encoding has them, are read where they lie: in a session that is the mapped file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "contract.h"
#include "decode.h"
#include "scratch.h"

namespace sparsify {

struct ColumnsWeights {
  static constexpr int64_t kMostInTask = 32768;  // weights: some 15 us of one row at 0.5 ns each; fits `end`

  // Columns [first, last), which have `count` weights from `start` on; or a part of one column, whose sum goes to
  // partial sum `part`.
  struct Task {
    int64_t start, part;  // part: -1 for whole columns
    int32_t first, last;
    int32_t count;
  };
  // A column of several tasks: its sum is that of `parts` partial sums from `first` on, in this order.
  struct Split {
    int64_t column, first, parts;
  };

  int64_t k, n, count;
  const float* value;  // [count], borrowed; fillers are 0
  bool near;           // rows are uint16_t
  Aligned<uint8_t> row;  // uint16_t or uint32_t [count]
  Aligned<uint16_t> end;  // [n] where a column ends, in weights from its task's start
  std::vector<Task> tasks;
  std::vector<Split> splits;
  int64_t partials = 0;
  Epilogue epilogue;

  int64_t size() const { return count * ((near ? 2 : 4) + 4) + n * 2; }
};

// Fills `out`; returns an empty string, or what is wrong with the encoding, which must be kColumns. `in.values` must
// outlive `out`.
std::string pack_columns(const Encoded& in, Epilogue epilogue, ColumnsWeights* out);

}  // namespace sparsify
