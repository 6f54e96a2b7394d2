// AVX-512 intrinsics in plain C++, those that the kernels use and no others, so that their AVX-512 sources run, and are
// checked, on any CPU with AVX2: included before such a source in place of the compiler's flags (SPARSIFY_EMULATE_AVX512
// in CMakeLists.txt). What each does is from Intel's intrinsics guide, where NaN, saturation and order of operands matter.
// A load or store touches the bytes that the instruction would, so sanitizers see them all; an aligned one asserts it.
// For GCC: it has the types of AVX-512 whatever its flags.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#define __AVX512VNNI__ 1  // which int8_avx512-inl.h and int8_avx2-inl.h ask for
#define __AVX512VL__ 1

namespace emulated {
namespace {

// A register as Lanes<T>: 64 / sizeof(T) numbers, or as many as another type of register holds.
template <class T, int kCount = 64 / sizeof(T)>
struct Lanes {
  static constexpr int count = kCount;
  T at[kCount];
};

template <class To, class From>
To cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class T, class V>
Lanes<T, sizeof(V) / sizeof(T)> lanes(const V& v) {
  return cast<Lanes<T, sizeof(V) / sizeof(T)>>(v);
}

// The register V of f(0), f(1), ..., each a T.
template <class V, class T, class F>
V fill(F f) {
  Lanes<T, sizeof(V) / sizeof(T)> out;
  for (int i = 0; i < out.count; ++i) out.at[i] = static_cast<T>(f(i));
  return cast<V>(out);
}

template <class T, class V, class F>
V map(V a, F f) {
  const auto x = lanes<T>(a);
  return fill<V, T>([&](int i) { return f(x.at[i]); });
}

template <class T, class V, class F>
V zip(V a, V b, F f) {
  const auto x = lanes<T>(a), y = lanes<T>(b);
  return fill<V, T>([&](int i) { return f(x.at[i], y.at[i]); });
}

template <class V, class T>
V all(T v) {
  return fill<V, T>([=](int) { return v; });
}

inline __m512i four_times(__m128i v) {
  const auto x = lanes<int32_t>(v);
  return fill<__m512i, int32_t>([&](int i) { return x.at[i % 4]; });
}

template <class V>
V load(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void aligned(const void* p) {
  if (reinterpret_cast<uintptr_t>(p) % 64 != 0) __builtin_trap();
}

template <class T>
T clip(int64_t v) {
  return static_cast<T>(std::clamp<int64_t>(v, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
}

// To nearest even; what int32 cannot hold is its least number.
inline int32_t to_int(float v) {
  const float rounded = std::nearbyint(v);
  return rounded >= -2147483648.0f && rounded < 2147483648.0f ? static_cast<int32_t>(rounded)
                                                              : std::numeric_limits<int32_t>::min();
}

// bfloat16 instructions take denormals for zeros and make none.
inline float flushed(float v) { return std::fabs(v) < std::numeric_limits<float>::min() ? std::copysign(0.0f, v) : v; }

inline float from_bf16(uint16_t bits) { return flushed(cast<float>(static_cast<uint32_t>(bits) << 16)); }

inline uint16_t to_bf16(float v) {
  const auto bits = cast<uint32_t>(flushed(v));
  if (std::isnan(v)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// Two of T for each 128 bits of a and b, from lane `first` of them on: T alternates a, b.
template <class T, class V>
V unpack(V a, V b, int first) {
  constexpr int kIn128 = 16 / sizeof(T);
  const auto x = lanes<T>(a), y = lanes<T>(b);
  return fill<V, T>([&](int i) {
    const int at = i / kIn128 * kIn128 + first + i % kIn128 / 2;
    return i % 2 == 0 ? x.at[at] : y.at[at];
  });
}

// From wide numbers to narrow ones with saturation, a then b within each 128 bits.
template <class Wide, class Narrow>
inline __m512i pack(__m512i a, __m512i b) {
  constexpr int kWide = 16 / sizeof(Wide);
  const auto x = lanes<Wide>(a), y = lanes<Wide>(b);
  return fill<__m512i, Narrow>([&](int i) {
    const int lane = i / (2 * kWide), at = i % (2 * kWide);
    return clip<Narrow>(at < kWide ? x.at[lane * kWide + at] : y.at[lane * kWide + at - kWide]);
  });
}

template <class V>
V dpbusd(V sum, V a, V b) {
  const auto x = lanes<uint8_t>(a);
  const auto w = lanes<int8_t>(b);
  const auto s = lanes<int32_t>(sum);
  return fill<V, int32_t>([&](int i) {
    int32_t total = s.at[i];
    for (int j = 4 * i; j < 4 * i + 4; ++j) total += x.at[j] * w.at[j];
    return total;
  });
}

inline __m512 dpbf16(__m512 sum, __m512bh a, __m512bh b) {
  const auto x = lanes<uint16_t>(a), w = lanes<uint16_t>(b);
  const auto s = lanes<float>(sum);
  return fill<__m512, float>([&](int i) {
    const float odd = std::fma(from_bf16(x.at[2 * i + 1]), from_bf16(w.at[2 * i + 1]), flushed(s.at[i]));
    return flushed(std::fma(from_bf16(x.at[2 * i]), from_bf16(w.at[2 * i]), flushed(odd)));
  });
}

template <class T>
inline __m512i permute(__m512i index, __m512i a) {
  const auto p = lanes<T>(index), x = lanes<T>(a);
  return fill<__m512i, T>([&](int i) { return x.at[p.at[i] % x.count]; });
}

// T: unsigned numbers as wide as V's
template <class T, class V>
V permute_two(V a, __m512i index, V b) {
  const auto x = lanes<T>(a), p = lanes<T>(index), y = lanes<T>(b);
  return fill<V, T>([&](int i) { return (p.at[i] & x.count ? y : x).at[p.at[i] % x.count]; });
}

inline __m512 blend(__mmask16 mask, __m512 a, __m512 b) {
  const auto x = lanes<float>(a), y = lanes<float>(b);
  return fill<__m512, float>([&](int i) { return mask >> i & 1 ? y.at[i] : x.at[i]; });
}

inline __mmask16 common_bits(__m512i a, __m512i b) {
  const auto x = lanes<uint32_t>(a), y = lanes<uint32_t>(b);
  unsigned mask = 0;
  for (int i = 0; i < 16; ++i) mask |= static_cast<unsigned>((x.at[i] & y.at[i]) != 0) << i;
  return static_cast<__mmask16>(mask);
}

inline __m512i shuffle_bytes(__m512i a, __m512i index) {
  const auto x = lanes<uint8_t>(a), p = lanes<uint8_t>(index);
  return fill<__m512i, uint8_t>([&](int i) { return p.at[i] & 0x80 ? 0 : x.at[i / 16 * 16 + p.at[i] % 16]; });
}

inline __m512 shuffle_128(__m512 a, __m512 b, int control) {
  const auto x = lanes<float>(a), y = lanes<float>(b);
  return fill<__m512, float>([&](int i) {
    const int lane = i / 4, from = control >> (2 * lane) & 3;
    return (lane < 2 ? x : y).at[4 * from + i % 4];
  });
}

inline __m512i maddubs(__m512i a, __m512i b) {
  const auto x = lanes<uint8_t>(a);
  const auto w = lanes<int8_t>(b);
  return fill<__m512i, int16_t>(
      [&](int i) { return clip<int16_t>(x.at[2 * i] * w.at[2 * i] + x.at[2 * i + 1] * w.at[2 * i + 1]); });
}

inline __m512i madd(__m512i a, __m512i b) {
  const auto x = lanes<int16_t>(a), w = lanes<int16_t>(b);
  return fill<__m512i, int32_t>([&](int i) { return x.at[2 * i] * w.at[2 * i] + x.at[2 * i + 1] * w.at[2 * i + 1]; });
}

inline __m512 load_masked(__mmask16 mask, const float* p) {
  return fill<__m512, float>([&](int i) { return mask >> i & 1 ? load<float>(p + i) : 0.0f; });
}

inline __m128i load_masked(__mmask16 mask, const uint8_t* p) {
  return fill<__m128i, uint8_t>([&](int i) { return mask >> i & 1 ? p[i] : 0; });
}

inline void store_masked(float* p, __mmask16 mask, __m512 v) {
  const auto x = lanes<float>(v);
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) std::memcpy(p + i, &x.at[i], sizeof(float));
  }
}

inline __m128 low_quarter(__m512 v) {
  __m128 out;
  std::memcpy(&out, &v, sizeof out);
  return out;
}

inline void store_masked(uint8_t* p, __mmask16 mask, __m128i v) {
  uint8_t bytes[16];
  std::memcpy(bytes, &v, sizeof bytes);
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) p[i] = bytes[i];
  }
}

inline __m128i to_bytes(__m512i v) {
  const auto x = lanes<uint32_t>(v);
  return fill<__m128i, uint8_t>([&](int i) { return std::min<uint32_t>(x.at[i], 255); });
}

inline __m512bh to_bf16(__m512 high, __m512 low) {
  const auto x = lanes<float>(low), y = lanes<float>(high);
  return fill<__m512bh, uint16_t>([&](int i) { return to_bf16(i < 16 ? x.at[i] : y.at[i - 16]); });
}

inline __mmask32 equal_words(__m512i a, __m512i b) {
  const auto x = lanes<uint16_t>(a), y = lanes<uint16_t>(b);
  __mmask32 mask = 0;
  for (int i = 0; i < 32; ++i) mask |= static_cast<__mmask32>(x.at[i] == y.at[i]) << i;
  return mask;
}

template <class F>
inline float reduce(__m512 v, F f) {
  const auto x = lanes<float>(v);
  float out = x.at[0];
  for (int i = 1; i < 16; ++i) out = f(out, x.at[i]);
  return out;
}

// min and max return their second operand for a NaN.
constexpr auto kMin = [](float a, float b) { return a < b ? a : b; };
constexpr auto kMax = [](float a, float b) { return a > b ? a : b; };
constexpr auto kAdd = [](auto a, auto b) { return a + b; };
constexpr auto kSub = [](auto a, auto b) { return a - b; };
constexpr auto kMul = [](auto a, auto b) { return a * b; };

inline __m512 fma(__m512 a, __m512 b, __m512 c) {
  const auto x = lanes<float>(a), y = lanes<float>(b), z = lanes<float>(c);
  return fill<__m512, float>([&](int i) { return std::fma(x.at[i], y.at[i], z.at[i]); });
}

inline __m512i to_ints(__m512 v) {
  const auto x = lanes<float>(v);
  return fill<__m512i, int32_t>([&](int i) { return to_int(x.at[i]); });
}

inline __m512 to_floats(__m512i v) {
  const auto x = lanes<int32_t>(v);
  return fill<__m512, float>([&](int i) { return x.at[i]; });
}

inline __m512i max_int(__mmask16 mask, __m512i a, __m512i b) {
  const auto x = lanes<int32_t>(a), y = lanes<int32_t>(b);
  return fill<__m512i, int32_t>([&](int i) { return mask >> i & 1 ? std::max(x.at[i], y.at[i]) : 0; });
}

// 16 numbers of T.
template <class T, class V>
__m512i widen(V v) {
  const auto x = lanes<T>(v);
  return fill<__m512i, uint32_t>([&](int i) { return static_cast<uint32_t>(x.at[i]); });
}

template <class V>
V load_aligned(const void* p) {
  aligned(p);
  return load<V>(p);
}

template <class V>
inline void store(void* p, const V& v) {
  std::memcpy(p, &v, sizeof v);
}

}  // namespace
}  // namespace emulated

#undef _mm256_dpbusd_epi32  // GCC has these as macros, some of them only without optimisation
#undef _mm512_roundscale_ps
#undef _mm512_setr_epi32
#undef _mm512_shuffle_f32x4
#undef _mm512_slli_epi32
#define _mm512_setzero_si512() (__m512i{})
#define _mm512_setzero_ps() (__m512{})
#define _mm512_set1_epi16(v) emulated::all<__m512i>(static_cast<int16_t>(v))
#define _mm512_set1_epi32(v) emulated::all<__m512i>(static_cast<int32_t>(v))
#define _mm512_set1_ps(v) emulated::all<__m512>(static_cast<float>(v))
#define _mm512_setr_epi32(...) emulated::cast<__m512i>(emulated::Lanes<int32_t>{{__VA_ARGS__}})
#define _mm512_load_si512(p) emulated::load_aligned<__m512i>(p)
#define _mm512_load_ps(p) emulated::load_aligned<__m512>(p)
#define _mm512_loadu_si512(p) emulated::load<__m512i>(p)
#define _mm512_loadu_ps(p) emulated::load<__m512>(p)
#define _mm512_maskz_loadu_ps(mask, p) emulated::load_masked(mask, p)
#define _mm_maskz_loadu_epi8(mask, p) emulated::load_masked(mask, p)
#define _mm512_store_si512(p, v) (emulated::aligned(p), emulated::store(p, v))
#define _mm512_store_ps(p, v) (emulated::aligned(p), emulated::store(p, v))
#define _mm512_storeu_si512(p, v) emulated::store(p, v)
#define _mm512_storeu_ps(p, v) emulated::store(p, v)
#define _mm512_mask_storeu_ps(p, mask, v) emulated::store_masked(p, mask, v)
#define _mm_mask_storeu_epi8(p, mask, v) emulated::store_masked(p, mask, v)
#define _mm512_broadcast_i32x4(v) emulated::four_times(v)
#define _mm512_add_ps(a, b) emulated::zip<float>(a, b, emulated::kAdd)
#define _mm512_mul_ps(a, b) emulated::zip<float>(a, b, emulated::kMul)
#define _mm512_div_ps(a, b) emulated::zip<float>(a, b, [](float x, float y) { return x / y; })
#define _mm512_min_ps(a, b) emulated::zip<float>(a, b, emulated::kMin)
#define _mm512_max_ps(a, b) emulated::zip<float>(a, b, emulated::kMax)
#define _mm512_fmadd_ps(a, b, c) emulated::fma(a, b, c)
#define _mm512_roundscale_ps(v, control) emulated::map<float>(v, [](float x) { return std::nearbyint(x); })
#define _mm512_reduce_min_ps(v) emulated::reduce(v, emulated::kMin)
#define _mm512_reduce_max_ps(v) emulated::reduce(v, emulated::kMax)
#define _mm512_reduce_add_ps(v) emulated::reduce(v, emulated::kAdd)
#define _mm512_add_epi32(a, b) emulated::zip<uint32_t>(a, b, emulated::kAdd)  // wraps, as the instruction does
#define _mm512_sub_epi32(a, b) emulated::zip<uint32_t>(a, b, emulated::kSub)  // wraps, as the instruction does
#define _mm512_mullo_epi32(a, b) emulated::zip<uint32_t>(a, b, emulated::kMul)  // wraps, as the instruction does
#define _mm512_max_epi32(a, b) emulated::max_int(0xFFFF, a, b)
#define _mm512_maskz_max_epi32(mask, a, b) emulated::max_int(mask, a, b)
#define _mm512_slli_epi32(v, n) emulated::map<uint32_t>(v, [](uint32_t x) { return x << (n); })
#define _mm512_and_si512(a, b) emulated::zip<uint64_t>(a, b, [](uint64_t x, uint64_t y) { return x & y; })
#define _mm512_cmpeq_epi16_mask(a, b) emulated::equal_words(a, b)
#define _mm512_test_epi32_mask(a, b) emulated::common_bits(a, b)
#define _mm512_mask_blend_ps(mask, a, b) emulated::blend(mask, a, b)
#define _mm512_cvtepi8_epi32(v) emulated::widen<int8_t>(v)
#define _mm512_cvtepu8_epi32(v) emulated::widen<uint8_t>(v)
#define _mm512_cvtepu16_epi32(v) emulated::widen<uint16_t>(v)
#define _mm512_cvtps_epi32(v) emulated::to_ints(v)
#define _mm512_cvtepi32_ps(v) emulated::to_floats(v)
#define _mm512_cvtusepi32_epi8(v) emulated::to_bytes(v)
#define _mm512_cvtne2ps_pbh(high, low) emulated::to_bf16(high, low)
#define _mm512_castpd_ps(v) emulated::cast<__m512>(v)
#define _mm512_castps512_ps128(v) emulated::low_quarter(v)
#define _mm512_castps_pd(v) emulated::cast<__m512d>(v)
#define _mm512_castsi512_ps(v) emulated::cast<__m512>(v)
#define _mm512_unpacklo_ps(a, b) emulated::unpack<float>(a, b, 0)
#define _mm512_unpackhi_ps(a, b) emulated::unpack<float>(a, b, 2)
#define _mm512_unpacklo_pd(a, b) emulated::unpack<double>(a, b, 0)
#define _mm512_unpackhi_pd(a, b) emulated::unpack<double>(a, b, 1)
#define _mm512_shuffle_f32x4(a, b, control) emulated::shuffle_128(a, b, control)
#define _mm512_packus_epi32(a, b) emulated::pack<int32_t, uint16_t>(a, b)
#define _mm512_packus_epi16(a, b) emulated::pack<int16_t, uint8_t>(a, b)
#define _mm512_permutexvar_epi8(index, a) emulated::permute<uint8_t>(index, a)
#define _mm512_permutexvar_epi16(index, a) emulated::permute<uint16_t>(index, a)
#define _mm512_permutexvar_epi32(index, a) emulated::permute<uint32_t>(index, a)
#define _mm512_permutex2var_epi16(a, index, b) emulated::permute_two<uint16_t>(a, index, b)
#define _mm512_permutex2var_ps(a, index, b) emulated::permute_two<uint32_t>(a, index, b)
#define _mm512_shuffle_epi8(a, index) emulated::shuffle_bytes(a, index)
#define _mm512_maddubs_epi16(a, b) emulated::maddubs(a, b)
#define _mm512_madd_epi16(a, b) emulated::madd(a, b)
#define _mm512_dpbusd_epi32(sum, a, b) emulated::dpbusd(sum, a, b)
#define _mm256_dpbusd_epi32(sum, a, b) emulated::dpbusd(sum, a, b)
#define _mm512_dpbf16_ps(sum, a, b) emulated::dpbf16(sum, a, b)
