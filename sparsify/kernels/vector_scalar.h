// One lane of float arithmetic: the reference of vector_avx512.h. Same names, same roundings.
#pragma once

#include <cmath>
#include <cstdint>

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
};

}  // namespace sparsify
