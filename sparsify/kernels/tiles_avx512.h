// What the permute kernels for AVX-512 share: tiles of up to 8 rows by a pair of groups of 16 columns.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "contract.h"

namespace sparsify {
namespace {  // included at several ISAs: each object file must keep its own

// f(R) for the R, 1 to 8, that `rows` is: a constant that templates take.
template <class F>
inline void for_rows(int64_t rows, F&& f) {
  switch (rows) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 4: return f(std::integral_constant<int, 4>{});
    case 5: return f(std::integral_constant<int, 5>{});
    case 6: return f(std::integral_constant<int, 6>{});
    case 7: return f(std::integral_constant<int, 7>{});
    default: return f(std::integral_constant<int, 8>{});
  }
}

// What follows the bias: short enough to be done in registers, or not.
enum class Ending { kNothing, kRelu, kAdd, kLonger };

inline Ending ending_of(Activation activation, const float* residual) {
  if (activation == Activation::kNone) return residual == nullptr ? Ending::kNothing : Ending::kAdd;
  return activation == Activation::kRelu && residual == nullptr ? Ending::kRelu : Ending::kLonger;
}

// The lanes `inside` of y: v at its end; max(0, NaN) is NaN.
template <Ending kEnding>
inline void end(__m512 v, __mmask16 inside, const float* residual, float* y) {
  if (kEnding == Ending::kRelu) v = _mm512_max_ps(_mm512_setzero_ps(), v);
  if (kEnding == Ending::kAdd) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(inside, residual));
  _mm512_mask_storeu_ps(y, inside, v);
}

}  // namespace
}  // namespace sparsify

// A permute step of 4 rows, in assembly: what compilers make of the intrinsics varies by up to a fifth with their version
// and with what stands around it (Zen 5). Permutes of a row precede the products of the row before, and no address waits
// for another.
//
// Rows at q, q + s, q + 2s and q + s3 (bytes), positions p and weights w of the two groups, sums a and b of rows 0 to 3.
#if defined(SPARSIFY_ASSEMBLY)
#define SPARSIFY_ROW_0 "(%[q])"
#define SPARSIFY_ROW_1 "(%[q],%[s])"
#define SPARSIFY_ROW_2 "(%[q],%[s],2)"
#define SPARSIFY_ROW_3 "(%[q],%[s3])"

// t0 and t1: what the groups multiply of a row. A window of one register, or of two: there one group's positions are
// overwritten, in a copy, and then the lower register.
#define SPARSIFY_PICK(permute, row, t) \
  "vmovdqu64 " row ", %[x]\n\t" permute " %[x], %[p0], %[" t "0]\n\t" permute " %[x], %[p1], %[" t "1]\n\t"
#define SPARSIFY_PICK_WIDE(row, t)                                                              \
  "vmovdqu64 " row ", %[" t "0]\n\tvmovdqu64 64" row ", %[x]\n\tvmovdqa64 %[p1], %[" t "1]\n\t" \
  "vpermi2w %[x], %[" t "0], %[" t "1]\n\tvpermt2w %[x], %[p0], %[" t "0]\n\t"
#define SPARSIFY_DOT(dot, t, r) dot " %[w0], %[" t "0], %[a" r "]\n\t" dot " %[w1], %[" t "1], %[b" r "]\n\t"

#define SPARSIFY_FOUR_ROWS(name, Sum, dot, pick)                                                                  \
  inline void name(const uint8_t* q, int64_t s, int64_t s3, const __m512i (&p)[2], const __m512i (&w)[2], Sum* a, \
                   Sum* b) {                                                                                      \
    __m512i x, even0, even1, odd0, odd1;                                                                          \
    asm(pick(SPARSIFY_ROW_0, "even")                                                                              \
        pick(SPARSIFY_ROW_1, "odd") SPARSIFY_DOT(dot, "even", "0")                                                \
        pick(SPARSIFY_ROW_2, "even") SPARSIFY_DOT(dot, "odd", "1")                                                \
        pick(SPARSIFY_ROW_3, "odd") SPARSIFY_DOT(dot, "even", "2")                                                \
        SPARSIFY_DOT(dot, "odd", "3")                                                                             \
        : [a0] "+v"(a[0]), [a1] "+v"(a[1]), [a2] "+v"(a[2]), [a3] "+v"(a[3]), [b0] "+v"(b[0]), [b1] "+v"(b[1]),   \
          [b2] "+v"(b[2]), [b3] "+v"(b[3]), [x] "=&v"(x), [even0] "=&v"(even0), [even1] "=&v"(even1),             \
          [odd0] "=&v"(odd0), [odd1] "=&v"(odd1)                                                                  \
        : [q] "r"(q), [s] "r"(s), [s3] "r"(s3), [p0] "v"(p[0]), [p1] "v"(p[1]), [w0] "v"(w[0]), [w1] "v"(w[1]),   \
          "m"(*reinterpret_cast<const uint8_t(*)[1 << 30]>(q))); /* what rows there are */                        \
  }

namespace sparsify {
namespace {  // included at several ISAs: each object file must keep its own

// Eight rows by four and four.
template <class Sum, class Four>
inline void eight_rows(Four four, const uint8_t* q, int64_t s, const __m512i (&p)[2], const __m512i (&w)[2], Sum* a,
                       Sum* b) {
  int64_t s3 = 3 * s;
  asm("" : "+r"(s3));  // a register of its own, not sums of others
  four(q, s, s3, p, w, a, b);
  four(q + 4 * s, s, s3, p, w, a + 4, b + 4);
}

}  // namespace
}  // namespace sparsify
#endif
