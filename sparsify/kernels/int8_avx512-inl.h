// Registers of the int8 kernels for AVX-512 without VBMI, with and without VNNI; see int8_permute-inl.h.
//
//   vbroadcasti32x4 t = 16 inputs              load port only
//   vpshufb         t = t[positions]           Intel: port 5; Zen 4: two half registers a cycle on each of 2 ports
//   VNNI:           vpdpbusd sum += t * w      port 0 (and 5 on servers); exact
//   else:           vpmaddubsw, vpmaddwd by 1, vpaddd      pairs never leave 16 bits: see Int8Layout
#pragma once

#include <immintrin.h>

#include <cstring>

#include "int8_stream.h"
#include "vector_avx512.h"

namespace sparsify {
namespace {

template <bool kVnni>
struct Int8Avx512 {
  using Vector = Avx512Lanes;
  using Bytes = __m512i;
  using Sum = __m512i;
  static constexpr Int8Layout kLayout{16, 16, kVnni ? 2 : 4, kVnni ? 1 : 3, 1, !kVnni};
  static constexpr int kRows = 8, kParts = 1, kRegister = 64;
  static constexpr int64_t kPanelOverhead = 5;  // FMAs a broadcast takes the time of: Zen 4
  static constexpr bool kSigned = false;

  static Sum zero() { return _mm512_setzero_si512(); }
  static Sum part(Sum sum, int) { return sum; }
  static Bytes load(const uint8_t* p) { return _mm512_load_si512(p); }
  static Bytes table(const uint8_t* q) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
  }
  static Bytes pick(Bytes table, Bytes positions) { return _mm512_shuffle_epi8(table, positions); }
  static Bytes quad(const uint8_t* q) {
    int32_t four;
    std::memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static Sum dot(Sum sum, Bytes x, Bytes w) {
    if constexpr (kVnni) {
#if defined(__AVX512VNNI__)
      return _mm512_dpbusd_epi32(sum, x, w);
#endif
    }
    const __m512i pairs = _mm512_maddubs_epi16(x, w);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
};

}  // namespace
}  // namespace sparsify
