// The two passes of quantize.h, 64 values of a row at a time, four rows between the one pass and the other. K of 384 takes
// about 50 cycles each on Zen 4, where loads (one zmm a cycle) and the chains of min and max (4 cycles, four of each) are
// the limits.
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

// Of x [k]: 16 lanes of lows, highs and poison.
inline RangeLanes lanes_of(const float* x, int64_t k) {
  RangeLanes part[4];
  int64_t i = 0;
  for (; i + 64 <= k; i += 64) {
    for (int j = 0; j < 4; ++j) part[j].add(_mm512_loadu_ps(x + i + 16 * j));
  }
  for (; i < k; i += 16) part[0].add(_mm512_maskz_loadu_ps(first_lanes(k - i), x + i));
  for (int j = 1; j < 4; ++j) part[0].join(part[j]);
  return part[0];
}

inline RowRange range_avx512(const float* x, int64_t k) {
  const RangeLanes all = lanes_of(x, k);
  return {_mm512_reduce_min_ps(all.low), _mm512_reduce_max_ps(all.high), _mm512_reduce_add_ps(all.poison)};
}

// Of four registers the reductions, one a lane: half of the shuffles of one after the other.
template <class F>
inline __m128 reduce_four(__m512 a, __m512 b, __m512 c, __m512 d, F combine) {
  const auto pairs = [&](__m512 p, __m512 q) { return combine(_mm512_unpacklo_ps(p, q), _mm512_unpackhi_ps(p, q)); };
  const __m512d ab = _mm512_castps_pd(pairs(a, b)), cd = _mm512_castps_pd(pairs(c, d));
  const __m512 all = combine(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
  const __m512 half = combine(all, _mm512_shuffle_f32x4(all, all, 0x4E));
  return _mm512_castps512_ps128(combine(half, _mm512_shuffle_f32x4(half, half, 0xB1)));
}

// row_scale of four ranges, with the same roundings.
inline void four_scales(const RangeLanes (&of)[4], RowScale (&out)[4]) {
  const __m128 low = reduce_four(of[0].low, of[1].low, of[2].low, of[3].low,
                                 [](__m512 a, __m512 b) { return _mm512_min_ps(a, b); });
  const __m128 high = reduce_four(of[0].high, of[1].high, of[2].high, of[3].high,
                                  [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); });
  const __m128 poison = reduce_four(of[0].poison, of[1].poison, of[2].poison, of[3].poison,
                                    [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
  const __m128 levels = _mm_set1_ps(255.0f);
  const __m128 span = _mm_max_ps(_mm_sub_ps(high, low), _mm_set1_ps(1e-30f));
  const __m128 inverse = _mm_div_ps(levels, span);
  const __m128 minus_low = _mm_sub_ps(_mm_setzero_ps(), low);
  const __m128 zero_point = _mm_round_ps(_mm_mul_ps(minus_low, inverse), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m128 usable = _mm_and_ps(_mm_cmpge_ps(zero_point, _mm_setzero_ps()), _mm_cmple_ps(zero_point, levels));
  const __m128 scale = _mm_add_ps(_mm_div_ps(span, levels), poison);
  float inverses[4], scales[4];
  int32_t zero_points[4];
  _mm_storeu_ps(inverses, inverse);
  _mm_storeu_ps(scales, scale);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(zero_points), _mm_cvtps_epi32(_mm_and_ps(usable, zero_point)));
  for (int i = 0; i < 4; ++i) out[i] = {inverses[i], scales[i], zero_points[i]};
}

// round(v inverse) + zero point as int32, to nearest even; a NaN becomes negative. Saturation to u8 is the caller's.
inline __m512i shifted_avx512(__m512 v, __m512 inverse, __m512i zero_point) {
  return _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(v, inverse)), zero_point);
}

// Writes `width` bytes, K or a multiple of 64: q for x [k], and zeros behind. next: what to ask for meanwhile, or null.
inline void fill_avx512(const float* x, int64_t k, int64_t width, const RowScale& row, const float* next, uint8_t* q) {
  const __m512 inverse = _mm512_set1_ps(row.inverse);
  const __m512i zero_point = _mm512_set1_epi32(row.zero_point);
  // Packing works within 128-bit lanes; this puts the dwords of four packed registers back in order.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  int64_t i = 0;
  for (; i + 64 <= k; i += 64) {
    for (int j = 0; next != nullptr && j < 4; ++j) {
      _mm_prefetch(reinterpret_cast<const char*>(next + i + 16 * j), _MM_HINT_T0);
    }
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
// Four rows at a time: what lies between the two passes is a chain of some 100 cycles. While they are filled the next four
// are on their way, where all eight fit L1.
template <class F>
inline void quantize_rows_avx512(const float* x, int64_t first, int64_t last, int64_t k, int64_t width, int64_t stride,
                                 uint8_t* q, F&& put) {
  constexpr int64_t kAtOnce = 4, kMostAhead = 1536;  // inputs: 8 rows of 6 KB
  for (int64_t m = first; m < last; m += kAtOnce) {
    const int64_t count = std::min(kAtOnce, last - m);
    RowScale row[kAtOnce];
    if (count == kAtOnce) {
      RangeLanes lanes[kAtOnce];
      for (int64_t i = 0; i < kAtOnce; ++i) lanes[i] = lanes_of(x + (m + i) * k, k);
      four_scales(lanes, row);
    } else {
      for (int64_t i = 0; i < count; ++i) row[i] = row_scale(range_avx512(x + (m + i) * k, k));
    }
    for (int64_t i = 0; i < count; ++i) {
      const float* next = k <= kMostAhead && m + i + kAtOnce < last ? x + (m + i + kAtOnce) * k : nullptr;
      fill_avx512(x + (m + i) * k, k, width, row[i], next, q + (m + i) * stride);
      put(m + i, row[i]);
    }
  }
}

}  // namespace
}  // namespace sparsify
