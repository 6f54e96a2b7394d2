// Registers of the int8 kernels for Advanced SIMD, with and without SDOT; see int8_permute-inl.h.
//
// Four q registers are one Bytes: 16 columns share a table of 64 inputs in four more, loaded once for 16 columns.
//
//   tbl   t = table[positions]      four table registers: about 3 slots of a vector pipe (Neoverse N1, V1)
//   sdot  sum += t * w              one slot; exact. Signed activations q - 128: SDOT has no mixed signs before i8mm
//   without: smull, smull2, 2 saddlp, addp, add   6 slots; exact: |product| <= 2^14, two of them in 32 bits
//
// 4 rows: 16 sums, 4 positions, 4 weights, 4 of a table and a product are 29 of 32 registers.
#pragma once

#include <cstring>

#include "int8_stream.h"
#include "vector_neon.h"

namespace sparsify {
namespace {

template <bool kDotprod>
struct Int8Neon {
  using Vector = NeonLanes;
  struct Bytes {
    int8x16_t v[4];
  };
  struct Sum {
    int32x4_t v[4];
  };
  static constexpr Int8Layout kLayout{16, 64, kDotprod ? 4 : 9, kDotprod ? 1 : 6, 8, false};
  static constexpr int kRows = 4, kParts = 4, kRegister = 16;
  static constexpr int64_t kPanelOverhead = 5;  // FMAs a broadcast takes the time of: counted on Zen 4, not measured here
  static constexpr bool kSigned = true;

  static Sum zero() { return {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)}; }
  static int32x4_t part(const Sum& sum, int i) { return sum.v[i]; }
  static Bytes load(const uint8_t* p) {
    const auto* bytes = reinterpret_cast<const int8_t*>(p);
    return {vld1q_s8(bytes), vld1q_s8(bytes + 16), vld1q_s8(bytes + 32), vld1q_s8(bytes + 48)};
  }
  static int8x16x4_t table(const uint8_t* q) {
    const auto* bytes = reinterpret_cast<const int8_t*>(q);
    return {vld1q_s8(bytes), vld1q_s8(bytes + 16), vld1q_s8(bytes + 32), vld1q_s8(bytes + 48)};
  }
  static Bytes pick(const int8x16x4_t& table, const Bytes& positions) {
    const auto at = [&](int i) { return vqtbl4q_s8(table, vreinterpretq_u8_s8(positions.v[i])); };
    return {at(0), at(1), at(2), at(3)};
  }
  static Bytes quad(const uint8_t* q) {
    int32_t four;
    std::memcpy(&four, q, sizeof four);
    const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
    return {x, x, x, x};
  }
  static Sum dot(Sum sum, const Bytes& x, const Bytes& w) {
    for (int i = 0; i < 4; ++i) sum.v[i] = dot(sum.v[i], x.v[i], w.v[i]);
    return sum;
  }

 private:
  static int32x4_t dot(int32x4_t sum, int8x16_t x, int8x16_t w) {
#if defined(__ARM_FEATURE_DOTPROD)
    if constexpr (kDotprod) return vdotq_s32(sum, x, w);
#endif
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(w)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(x, w));
    return vaddq_s32(sum, vpaddq_s32(low, high));
  }
};

}  // namespace
}  // namespace sparsify
