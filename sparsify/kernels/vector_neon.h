// Four lanes of floats and integers, Advanced SIMD of AArch64. Same names and roundings as vector_scalar.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace sparsify {
namespace {  // included at several ISAs: each object file must keep its own

struct NeonLanes {
  static constexpr bool kPicks = false;
  static constexpr int kLanes = 4;
  using Float = float32x4_t;
  using Int = int32x4_t;

  static Float set(float v) { return vdupq_n_f32(v); }
  static Float add(Float a, Float b) { return vaddq_f32(a, b); }
  static Float mul(Float a, Float b) { return vmulq_f32(a, b); }
  static Float div(Float a, Float b) { return vdivq_f32(a, b); }
  static Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
  // The second operand when either is NaN, as minps and maxps: FMIN and FMAX would return the NaN.
  static Float min(Float a, Float b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static Float max(Float a, Float b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static Float round(Float v) { return vrndnq_f32(v); }

  // 2^n for an integer n from -127, which gives 0, to 128, which gives infinity; anything for NaN.
  static Float power_of_2(Float n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(to_int(n), set_int(127)), 23));
  }

  static Float load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, Float v) { vst1q_f32(p, v); }
  static Float load_first(const float* p, int64_t count) {
    if (count >= kLanes) return vld1q_f32(p);
    float lanes[kLanes] = {};
    std::memcpy(lanes, p, static_cast<size_t>(count) * sizeof(float));
    return vld1q_f32(lanes);
  }
  static void store_first(float* p, int64_t count, Float v) {
    if (count >= kLanes) return vst1q_f32(p, v);
    float lanes[kLanes];
    vst1q_f32(lanes, v);
    std::memcpy(p, lanes, static_cast<size_t>(count) * sizeof(float));
  }

  static Float load_bf16(const uint16_t* p) {  // the bits of kLanes bfloat16
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
  }

  static Float load_int8(const int8_t* p) {  // kLanes of them
    int32_t four;
    std::memcpy(&four, p, sizeof four);
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
  }

  static Int set_int(int32_t v) { return vdupq_n_s32(v); }
  static Int load_int(const int32_t* p) { return vld1q_s32(p); }
  static Int add(Int a, Int b) { return vaddq_s32(a, b); }
  static Int sub(Int a, Int b) { return vsubq_s32(a, b); }
  static Int mul(Int a, Int b) { return vmulq_s32(a, b); }
  static Float to_float(Int v) { return vcvtq_f32_s32(v); }
  static Int to_int(Float v) { return vcvtnq_s32_f32(v); }  // to nearest even; NaN is 0
  static void store_bytes(uint8_t* p, Int v) {              // saturating: int32 to uint16 to uint8
    const uint16x4_t words = vqmovun_s32(v);
    const uint32x2_t bytes = vreinterpret_u32_u8(vqmovn_u16(vcombine_u16(words, words)));
    const uint32_t four = vget_lane_u32(bytes, 0);
    std::memcpy(p, &four, sizeof four);
  }
  static void store_signed_bytes(uint8_t* p, Int v) {  // saturating: int32 to int16 to int8
    const int16x4_t words = vqmovn_s32(v);
    const int32x2_t bytes = vreinterpret_s32_s8(vqmovn_s16(vcombine_s16(words, words)));
    const int32_t four = vget_lane_s32(bytes, 0);
    std::memcpy(p, &four, sizeof four);
  }

  // out[j][i] = in[i][j]: two rounds of 4 shuffles.
  static void transpose(Float (&v)[4]) {
    const auto wide = [](Float a) { return vreinterpretq_f64_f32(a); };
    const auto narrow = [](float64x2_t a) { return vreinterpretq_f32_f64(a); };
    const Float a = vtrn1q_f32(v[0], v[1]), b = vtrn2q_f32(v[0], v[1]);
    const Float c = vtrn1q_f32(v[2], v[3]), d = vtrn2q_f32(v[2], v[3]);
    v[0] = narrow(vtrn1q_f64(wide(a), wide(c)));
    v[1] = narrow(vtrn1q_f64(wide(b), wide(d)));
    v[2] = narrow(vtrn2q_f64(wide(a), wide(c)));
    v[3] = narrow(vtrn2q_f64(wide(b), wide(d)));
  }
};

}  // namespace
}  // namespace sparsify
