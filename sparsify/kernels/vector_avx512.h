// Sixteen lanes of floats and integers, AVX-512. Same names and roundings as vector_scalar.h and vector_avx2.h.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace sparsify {
namespace {  // included at several ISAs: each object file must keep its own

// Lanes below `count`; count >= 0.
inline __mmask16 first_lanes(int64_t count) { return count >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << count) - 1); }

// Keeps a loaded register a register: GCC makes a load an operand of every instruction that reads it, and where there
// are three such instructions to a load, loads become what is scarce (two a cycle on Zen 5).
template <class Register>
inline void hold(Register& v) {
#if !defined(SPARSIFY_EMULATE_AVX512)
  asm("" : "+v"(v));
#else
  (void)v;
#endif
}

struct Avx512Lanes {
  static constexpr bool kPicks = true;  // has a Table
  static constexpr int kLanes = 16;
  using Float = __m512;
  using Int = __m512i;  // int32

  static Float set(float v) { return _mm512_set1_ps(v); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float div(Float a, Float b) { return _mm512_div_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
  static Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
  static Float round(Float v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

  // 2^n for an integer n from -127, which gives 0, to 128, which gives infinity; anything for NaN.
  static Float power_of_2(Float n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(to_int(n), set_int(127)), 23));
  }

  static Float load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Float v) { _mm512_storeu_ps(p, v); }
  static Float load_first(const float* p, int64_t count) { return _mm512_maskz_loadu_ps(first_lanes(count), p); }
  static void store_first(float* p, int64_t count, Float v) { _mm512_mask_storeu_ps(p, first_lanes(count), v); }

  static Float load_bf16(const uint16_t* p) {  // the bits of kLanes bfloat16
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }

  static Float load_int8(const int8_t* p) {  // kLanes of them
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }

  static Int set_int(int32_t v) { return _mm512_set1_epi32(v); }
  static Int load_int(const int32_t* p) { return _mm512_loadu_si512(p); }
  static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static Int mul(Int a, Int b) { return _mm512_mullo_epi32(a, b); }
  static Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
  static Int to_int(Float v) { return _mm512_cvtps_epi32(v); }
  static void store_bytes(uint8_t* p, Int v) {
    const __m512i positive = _mm512_max_epi32(v, _mm512_setzero_si512());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(positive));
  }

  static float sum(Float v) { return _mm512_reduce_add_ps(v); }

  static Int load_bytes(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Int load_first_bytes(const uint8_t* p, int64_t count) {  // zeros behind them
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first_lanes(count), p));
  }

  // Inputs in registers, of which any 16 can be picked.
  struct Table {
    static constexpr int64_t kInputs = 128;
    __m512 part[8];

    // The first `count` inputs at x, which may be less than none, and zeros; a NaN or an infinity among them makes
    // *poison NaN.
    Table(const float* x, int64_t count, Float* poison) {
      for (int64_t i = 0; i < 8; ++i) {
        part[i] = _mm512_maskz_loadu_ps(first_lanes(std::max<int64_t>(count - 16 * i, 0)), x + 16 * i);
        *poison = _mm512_fmadd_ps(part[i], _mm512_setzero_ps(), *poison);
      }
    }

    // Inputs at bits 0 to 6 of `at`.
    Float pick(Int at) const {
      const auto of = [&](int i) { return _mm512_permutex2var_ps(part[i], at, part[i + 1]); };
      const __mmask16 odd = bit(at, 5);
      return _mm512_mask_blend_ps(bit(at, 6), _mm512_mask_blend_ps(odd, of(0), of(2)),
                                  _mm512_mask_blend_ps(odd, of(4), of(6)));
    }

    // The same for 256 inputs, at bits 0 to 7.
    static Float pick_of_two(const Table& low, const Table& high, Int at) {
      return _mm512_mask_blend_ps(bit(at, 7), low.pick(at), high.pick(at));
    }

   private:
    static __mmask16 bit(Int v, int i) { return _mm512_test_epi32_mask(v, _mm512_set1_epi32(1 << i)); }
  };

  // out[j][i] = in[i][j]: four rounds of 16 shuffles.
  static void transpose(Float (&v)[16]) {
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    const auto low = [](__m512 a, __m512 b) {
      return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    };
    const auto high = [](__m512 a, __m512 b) {
      return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    };
    for (int i = 0; i < 16; i += 4) {
      v[i] = low(t[i], t[i + 2]);
      v[i + 1] = high(t[i], t[i + 2]);
      v[i + 2] = low(t[i + 1], t[i + 3]);
      v[i + 3] = high(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
      t[i] = _mm512_shuffle_f32x4(v[i], v[i + 4], 0x88);
      t[i + 4] = _mm512_shuffle_f32x4(v[i], v[i + 4], 0xDD);
      t[i + 8] = _mm512_shuffle_f32x4(v[i + 8], v[i + 12], 0x88);
      t[i + 12] = _mm512_shuffle_f32x4(v[i + 8], v[i + 12], 0xDD);
    }
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
      v[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xDD);
      v[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
      v[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xDD);
    }
  }
};

}  // namespace
}  // namespace sparsify
