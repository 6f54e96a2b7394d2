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
#include <cstring>

#include "contract.h"
#include "scratch.h"

namespace sparsify {
namespace {  // included at several ISAs: each object file must keep its own

struct RowRange {
  float low, high;  // of x and 0
  float poison;     // 0, or NaN when x holds a NaN or an infinity
};

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

// Quantised rows as a kernel reads them: q [rows, stride], readable up to K rounded up to 64, whatever stands behind K.
struct QuantizedRows {
  const uint8_t* q;
  const float* scale;         // [rows]
  const int32_t* zero_point;  // [rows]
  int64_t stride;             // bytes
};

// Room for them in a thread's arena: of each row `width` bytes to be filled, behind these room for `copies` - 1 times as
// many.
struct QuantizedRoom {
  uint8_t* q;
  float* scale;
  int32_t* zero_point;
  int64_t width, stride;  // bytes, multiples of 64

  QuantizedRoom(int64_t rows, int64_t k, int64_t copies = 1)
      : width(round_up(k, kAlignment)), stride(apart(copies * width)) {
    q = scratch(rows * (stride + 8) + kAlignment);
    scale = reinterpret_cast<float*>(q + rows * stride);
    zero_point = reinterpret_cast<int32_t*>(scale + rows);
  }
  QuantizedRows rows() const { return {q, scale, zero_point, stride}; }
};

// Given rows where they lie, but for their zero points. K: a multiple of 64.
inline QuantizedRows in_place(const Quantized& x, int64_t rows, int64_t k) {
  auto* zero_point = reinterpret_cast<int32_t*>(scratch(rows * static_cast<int64_t>(sizeof(int32_t))));
  std::copy(x.zero_point, x.zero_point + rows, zero_point);
  return {x.q, x.scale, zero_point, k};
}

// Row m of given rows. kSigned: q - 128 and z - 128, for dot products of signed bytes; (q - 128) - (z - 128) is the same
// q - z.
template <bool kSigned>
inline void take_row(const Quantized& x, int64_t m, int64_t k, const QuantizedRoom& out) {
  uint8_t* q = out.q + m * out.stride;
  std::memcpy(q, x.q + m * k, static_cast<size_t>(k));
  std::memset(q + k, 0, static_cast<size_t>(out.width - k));
  if (kSigned) {
    for (int64_t i = 0; i < out.width; ++i) q[i] ^= 0x80;
  }
  out.scale[m] = x.scale[m];
  out.zero_point[m] = x.zero_point[m] - (kSigned ? 128 : 0);
}

}  // namespace
}  // namespace sparsify
