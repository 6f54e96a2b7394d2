// The two passes of quantize.h over one row, 64 values at a time. K of 384 takes about 50 cycles each on Zen 4,
// where loads (one zmm a cycle) and the chains of min and max (4 cycles, four of each) are the limits.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "quantize.h"
#include "vector_avx512.h"

namespace sparsify {
namespace {  // included at several ISAs: each object file must keep its own

struct RangeLanes {
  __m512 low = _mm512_setzero_ps(), high = _mm512_setzero_ps(), poison = _mm512_setzero_ps();

  void add(__m512 v) {
    hold(v);
    low = _mm512_min_ps(low, v);
    high = _mm512_max_ps(high, v);
    poison = _mm512_fmadd_ps(v, _mm512_setzero_ps(), poison);
  }
  void join(const RangeLanes& other) {
    low = _mm512_min_ps(low, other.low);
    high = _mm512_max_ps(high, other.high);
    poison = _mm512_add_ps(poison, other.poison);
  }
};

inline RowRange range_avx512(const float* x, int64_t k) {
  RangeLanes part[4];
  int64_t i = 0;
  for (; i + 64 <= k; i += 64) {
    for (int j = 0; j < 4; ++j) part[j].add(_mm512_loadu_ps(x + i + 16 * j));
  }
  for (; i < k; i += 16) part[0].add(_mm512_maskz_loadu_ps(first_lanes(k - i), x + i));
  for (int j = 1; j < 4; ++j) part[0].join(part[j]);
  return {_mm512_reduce_min_ps(part[0].low), _mm512_reduce_max_ps(part[0].high), _mm512_reduce_add_ps(part[0].poison)};
}

// round(v inverse) + zero point as int32, to nearest even; a NaN becomes negative. Saturation to u8 is the caller's.
inline __m512i shifted_avx512(__m512 v, __m512 inverse, __m512i zero_point) {
  return _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(v, inverse)), zero_point);
}

// Writes `width` bytes, K or a multiple of 64: q for x [k], and zeros behind.
inline void fill_avx512(const float* x, int64_t k, int64_t width, const RowScale& row, uint8_t* q) {
  const __m512 inverse = _mm512_set1_ps(row.inverse);
  const __m512i zero_point = _mm512_set1_epi32(row.zero_point);
  // Packing works within 128-bit lanes; this puts the dwords of four packed registers back in order.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  int64_t i = 0;
  for (; i + 64 <= k; i += 64) {
    __m512i v[4];
    for (int j = 0; j < 4; ++j) v[j] = shifted_avx512(_mm512_loadu_ps(x + i + 16 * j), inverse, zero_point);
    const __m512i words01 = _mm512_packus_epi32(v[0], v[1]), words23 = _mm512_packus_epi32(v[2], v[3]);
    const __m512i bytes = _mm512_packus_epi16(words01, words23);
    _mm512_storeu_si512(q + i, _mm512_permutexvar_epi32(order, bytes));
  }
  for (; i < width; i += 16) {
    const __mmask16 inside = i < k ? first_lanes(k - i) : __mmask16{0};
    const __m512i v = shifted_avx512(_mm512_maskz_loadu_ps(inside, x + i), inverse, zero_point);
    const __m512i positive = _mm512_maskz_max_epi32(inside, v, _mm512_setzero_si512());
    _mm_mask_storeu_epi8(q + i, first_lanes(width - i), _mm512_cvtusepi32_epi8(positive));
  }
}

// Rows `first` to `last` - 1 of x [rows, K] to q [rows, stride], `width` bytes each; put(m, row) takes the rest.
// A few rows at a time: what lies between the two passes is a chain of some 100 cycles a row.
template <class F>
inline void quantize_rows_avx512(const float* x, int64_t first, int64_t last, int64_t k, int64_t width, int64_t stride,
                                 uint8_t* q, F&& put) {
  constexpr int64_t kAtOnce = 4;
  for (int64_t m = first; m < last; m += kAtOnce) {
    const int64_t count = std::min(kAtOnce, last - m);
    RowScale row[kAtOnce];
    for (int64_t i = 0; i < count; ++i) row[i] = row_scale(range_avx512(x + (m + i) * k, k));
    for (int64_t i = 0; i < count; ++i) {
      fill_avx512(x + (m + i) * k, k, width, row[i], q + (m + i) * stride);
      put(m + i, row[i]);
    }
  }
}

}  // namespace
}  // namespace sparsify
