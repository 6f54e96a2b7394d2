// The reference of both passes of quantize.h over a row, one value at a time.
#pragma once

#include <algorithm>
#include <cmath>

#include "quantize.h"

namespace sparsify {
namespace {

inline RowRange range_of(const float* x, int64_t k) {
  RowRange range{0.0f, 0.0f, 0.0f};
  for (int64_t i = 0; i < k; ++i) {
    range.low = std::min(range.low, x[i]);
    range.high = std::max(range.high, x[i]);
    range.poison += x[i] * 0.0f;
  }
  return range;
}

inline void fill(const float* x, int64_t k, const RowScale& row, uint8_t* q) {
  for (int64_t i = 0; i < k; ++i) {
    const float shifted = std::nearbyint(x[i] * row.inverse) + static_cast<float>(row.zero_point);
    q[i] = shifted > 0.0f ? static_cast<uint8_t>(std::min(shifted, 255.0f)) : 0;  // NaN: 0
  }
}

}  // namespace
}  // namespace sparsify
