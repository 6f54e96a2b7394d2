// Steps of the int8 kernel for AVX-512 with VBMI and VNNI: R rows by G groups of 16 columns; int8_permute_avx512_vbmi.cc
// says what steps and groups are.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "int8_stream.h"
#include "tiles_avx512.h"
#include "vector_avx512.h"

namespace sparsify {
namespace {  // included at several ISAs: each object file must keep its own

constexpr int64_t kBlock = 64;         // inputs: bytes of a zmm register
constexpr int64_t kGroup = 16;         // columns: int32 lanes of a zmm register
constexpr int64_t kPair = 2 * kGroup;  // columns of a tile
constexpr int64_t kWidth = 4 * kPair;  // bytes of weights of a step

template <int R, int G>
using Sums = __m512i[G][R];

#if defined(SPARSIFY_ASSEMBLY)
#define SPARSIFY_PICK_BYTES(row, t) SPARSIFY_PICK("vpermb", row, t)
SPARSIFY_FOUR_ROWS(four_rows, __m512i, "vpdpbusd", SPARSIFY_PICK_BYTES)
#endif

// acc[g][r] += row r of the inputs at q times group g of the permute step at w.
template <int R, int G>
inline void permuted_step(const uint8_t* w, const uint8_t* q, int64_t stride, Sums<R, G>& acc) {
  __m512i position[G], weight[G];
  for (int g = 0; g < G; ++g) {
    position[g] = _mm512_load_si512(w + 64 * g);
    weight[g] = _mm512_load_si512(w + kWidth + 64 * g);
  }
#if defined(SPARSIFY_ASSEMBLY)
  if constexpr (R == 8 && G == 2) return eight_rows(four_rows, q, stride, position, weight, acc[0], acc[1]);
#endif
  for (int r = 0; r < R; ++r) {
    __m512i x = _mm512_loadu_si512(q + r * stride);
    hold(x);
    for (int g = 0; g < G; ++g) {
      acc[g][r] = _mm512_dpbusd_epi32(acc[g][r], _mm512_permutexvar_epi8(position[g], x), weight[g]);
    }
  }
}

// The same for the plain step at w and 4 inputs at q.
template <int R, int G>
inline void plain_step(const uint8_t* w, const uint8_t* q, int64_t stride, Sums<R, G>& acc) {
  for (int r = 0; r < R; ++r) {
    int32_t four;
    std::memcpy(&four, q + r * stride, 4);
    for (int g = 0; g < G; ++g) {
      acc[g][r] = _mm512_dpbusd_epi32(acc[g][r], _mm512_set1_epi32(four), _mm512_load_si512(w + 64 * g));
    }
  }
}

// acc[g][r] += row r of q times group g of a pair that goes block by block; w is its stream.
// Returns its end.
template <int R, int G>
inline const uint8_t* accumulate_blocks(const uint8_t* code, int64_t blocks, const uint8_t* w, const uint8_t* q,
                                        int64_t stride, Sums<R, G>& acc) {
  for (int64_t b = 0; b < blocks; ++b, q += kBlock) {
    const int count = code[b];
    if (count == Int8Stream::kPlain) {
      for (int i = 0; i < kBlock / 4; ++i, w += kWidth) plain_step<R, G>(w, q + 4 * i, stride, acc);
      continue;
    }
    for (int i = 0; i < count; ++i, w += 2 * kWidth) permuted_step<R, G>(w, q, stride, acc);
  }
  return w;
}

}  // namespace
}  // namespace sparsify
