// Eight lanes of floats and integers, AVX2 and FMA. Same names and roundings as vector_scalar.h and vector_avx512.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace sparsify {
namespace {  // included at several ISAs: each object file must keep its own

struct Avx2Lanes {
  static constexpr bool kPicks = false;
  static constexpr int kLanes = 8;
  using Float = __m256;
  using Int = __m256i;  // int32

  static Float set(float v) { return _mm256_set1_ps(v); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float div(Float a, Float b) { return _mm256_div_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
  static Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
  static Float round(Float v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

  // 2^n for an integer n from -127, which gives 0, to 128, which gives infinity; anything for NaN.
  static Float power_of_2(Float n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(to_int(n), set_int(127)), 23));
  }

  static Float load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Float v) { _mm256_storeu_ps(p, v); }
  // Whole vectors go the plain way: on Zen 3 a masked store is some forty instructions of microcode.
  static Float load_first(const float* p, int64_t count) {
    return count >= kLanes ? load(p) : _mm256_maskload_ps(p, first(count));
  }
  static void store_first(float* p, int64_t count, Float v) {
    count >= kLanes ? store(p, v) : _mm256_maskstore_ps(p, first(count), v);
  }

  static Float load_bf16(const uint16_t* p) {  // the bits of kLanes bfloat16
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }

  static Float load_int8(const int8_t* p) {  // kLanes of them
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }

  static Int set_int(int32_t v) { return _mm256_set1_epi32(v); }
  static Int load_int(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int sub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static Int mul(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
  static Float to_float(Int v) { return _mm256_cvtepi32_ps(v); }
  static Int to_int(Float v) { return _mm256_cvtps_epi32(v); }
  static void store_bytes(uint8_t* p, Int v) {  // saturating: int32 to int16 to uint8
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
  }

  // out[j][i] = in[i][j]: three rounds of 8 shuffles.
  static void transpose(Float (&v)[8]) {
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      v[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
      v[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
      v[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      v[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
    for (int i = 0; i < 4; ++i) {
      t[i] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x20);
      t[i + 4] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x31);
    }
    for (int i = 0; i < 8; ++i) v[i] = t[i];
  }

 private:
  // Lanes below `count`, for masked loads and stores; count >= 0.
  static __m256i first(int64_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(count < 8 ? count : 8)), lane);
  }
};

}  // namespace
}  // namespace sparsify
