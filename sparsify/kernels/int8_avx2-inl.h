// Registers of the int8 kernels for AVX2, with and without AVX-VNNI; see int8_permute-inl.h.
//
//   vbroadcasti128 t = 16 inputs              load port only
//   vpshufb        t = t[positions]           Intel: port 5 (and 1 from Ice Lake on); AMD: two a cycle
//   AVX-VNNI:      vpdpbusd sum += t * w      ports 0 and 1; exact
//   else:          vpmaddubsw, vpmaddwd by 1, vpaddd     pairs never leave 16 bits: see Int8Layout
//
// 8 rows of one group: 8 sums, positions, weights, a table, a product and ones are 13 of 16 registers.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "int8_stream.h"
#include "vector_avx2.h"

namespace sparsify {
namespace {

template <bool kVnni>
struct Int8Avx2 {
  using Vector = Avx2Lanes;
  using Bytes = __m256i;
  using Sum = __m256i;
  static constexpr Int8Layout kLayout{8, 16, kVnni ? 2 : 4, kVnni ? 1 : 3, 1, !kVnni};
  static constexpr int kRows = 8, kParts = 1, kRegister = 32;
  static constexpr int64_t kPanelOverhead = kVnni ? 5 : 10;  // FMAs a broadcast takes the time of: Zen 4, Zen 3
  static constexpr bool kSigned = false;

  static Sum zero() { return _mm256_setzero_si256(); }
  static Sum part(Sum sum, int) { return sum; }
  static Bytes load(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }
  static Bytes table(const uint8_t* q) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
  }
  static Bytes pick(Bytes table, Bytes positions) { return _mm256_shuffle_epi8(table, positions); }
  static Bytes quad(const uint8_t* q) {
    int32_t four;
    std::memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
  }
  static Sum dot(Sum sum, Bytes x, Bytes w) {
    if constexpr (kVnni) return dot_vnni(sum, x, w);
    const __m256i pairs = _mm256_maddubs_epi16(x, w);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    asm volatile("" : "+x"(sum));  // or GCC adds up the products of four steps first, and spills 24 of 32
    return sum;
  }

 private:
#if defined(__AVXVNNI__)
  static Sum dot_vnni(Sum sum, Bytes x, Bytes w) { return _mm256_dpbusd_avx_epi32(sum, x, w); }
#elif defined(__AVX512VNNI__) && defined(__AVX512VL__)  // the same instruction in AVX-512's encoding
  static Sum dot_vnni(Sum sum, Bytes x, Bytes w) { return _mm256_dpbusd_epi32(sum, x, w); }
#else
  static Sum dot_vnni(Sum sum, Bytes, Bytes) { static_assert(!kVnni, "needs AVX-VNNI"); return sum; }
#endif
};

}  // namespace
}  // namespace sparsify
