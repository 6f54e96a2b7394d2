// One lane of float arithmetic: the reference of vector_avx512.h. Same names, same roundings.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace sparsify {

struct ScalarLanes {
  static constexpr int kLanes = 1;
  using Float = float;
  static Float set(float v) { return v; }
  static Float add(Float a, Float b) { return a + b; }
  static Float mul(Float a, Float b) { return a * b; }
  static Float div(Float a, Float b) { return a / b; }
  static Float fma(Float a, Float b, Float c) { return std::fma(a, b, c); }
  // As minps and maxps: the second operand when either is NaN.
  static Float min(Float a, Float b) { return a < b ? a : b; }
  static Float max(Float a, Float b) { return a > b ? a : b; }
  static Float round(Float v) { return std::nearbyint(v); }
  // 2^n for an integer n from -127, which gives 0, to 128, which gives infinity; 1 for NaN.
  static Float power_of_2(Float n) {
    const uint32_t bits = static_cast<uint32_t>(std::isnan(n) ? 127 : static_cast<int32_t>(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
  }
};

}  // namespace sparsify
