// Sixteen lanes of float arithmetic. Same names and roundings as vector_scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace sparsify {

struct Avx512Lanes {
  static constexpr int kLanes = 16;
  using Float = __m512;
  static Float set(float v) { return _mm512_set1_ps(v); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float div(Float a, Float b) { return _mm512_div_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
  static Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
};

// Lanes below `count`; count >= 0.
inline __mmask16 first_lanes(int64_t count) { return count >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << count) - 1); }

}  // namespace sparsify
