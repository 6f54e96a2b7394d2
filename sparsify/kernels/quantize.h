// Quantising one row x [K] of activations to unsigned 8 bit, asymmetric; see sparsify/ops/bodies.py:
//
//   low = min(x, 0), high = max(x, 0), span = max(high - low, 1e-30), inverse = 255 / span
//   z = round(-low inverse), s = span / 255 - sum(x 0), q = clip(round(x inverse) + z, 0, 255)
//
// Every operation rounds once, in this order, on every ISA: q, z and s are bit-identical. The two passes over x
// are per ISA (quantize-inl.h); what lies between them is here.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "scratch.h"

namespace sparsify {
namespace {  // included at several ISAs: each object file must keep its own

struct RowRange {
  float low, high;  // of x and 0
  float poison;     // 0, or NaN when x holds a NaN or an infinity
};

// Rows of a task that quantises: some 4 us, so that every thread gets some.
inline int64_t rows_of_task(int64_t k) { return std::max<int64_t>(1, (16 << 10) / k); }

struct RowScale {
  float inverse;
  float scale;  // s
  int32_t zero_point;
};

inline RowScale row_scale(const RowRange& range) {
  const float width = range.high - range.low;
  const float span = width > 1e-30f ? width : 1e-30f;
  const float inverse = 255.0f / span;
  const float zero_point = std::nearbyint(-range.low * inverse);
  // A poisoned row comes out as NaN whatever its integers: any value in range will do.
  const bool usable = zero_point >= 0.0f && zero_point <= 255.0f;
  return {inverse, span / 255.0f + range.poison, usable ? static_cast<int32_t>(zero_point) : 0};
}

// Quantised rows in a thread's arena: q [rows, stride] with zeros from K to `width`, behind them room for `copies` - 1
// times as many bytes; then scales and zero points.
struct QuantizedRows {
  uint8_t* q;
  float* scale;
  int32_t* zero_point;
  int64_t width, stride;  // bytes, multiples of 64

  QuantizedRows(int64_t rows, int64_t k, int64_t copies = 1) : width(round_up(k, kAlignment)), stride(copies * width) {
    q = scratch(rows * (stride + 8) + kAlignment);
    scale = reinterpret_cast<float*>(q + rows * stride);
    zero_point = reinterpret_cast<int32_t*>(scale + rows);
  }
};

}  // namespace
}  // namespace sparsify
