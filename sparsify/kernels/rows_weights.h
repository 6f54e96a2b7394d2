// Weights of ROWS: a dense W [K, N], row-major, read where it lies.
#pragma once

#include <cstdint>

#include "contract.h"

namespace sparsify {

struct RowsWeights {
  int64_t k, n;
  const void* value;  // float, bits of bfloat16, or int8 [k, n], borrowed
  Epilogue epilogue;
};

}  // namespace sparsify
