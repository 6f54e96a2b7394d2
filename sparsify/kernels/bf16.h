// Numbers of bfloat16: the upper half of a float32. The bits stand for them, in files and in registers.
#pragma once

#include <cstdint>
#include <cstring>

#include "scratch.h"

namespace sparsify {
namespace {  // included at several ISAs: each object file must keep its own

inline float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// `value` rounded to bfloat16, to nearest, ties to even: adding half a unit carries where it must. Neither an infinity
// nor a NaN may come out as a number; a NaN whose bits would carry into the sign needs no care, for it is tested here.
inline float round_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (value != value) return value;
  bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000u;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Rounded rows in a thread's arena: bits [rows, stride] with zeros from K to stride, then a float for each row.
struct RoundedRows {
  uint16_t* bits;
  float* poison;   // 0, or NaN for a row that holds a NaN or an infinity once rounded
  int64_t stride;  // numbers, a multiple of 32, at least K rounded up to 64

  RoundedRows(int64_t rows, int64_t k) : stride(apart(2 * round_up(k, 64)) / 2) {
    bits = reinterpret_cast<uint16_t*>(scratch(rows * (stride * 2 + 4) + kAlignment));
    poison = reinterpret_cast<float*>(bits + rows * stride);
  }
};

}  // namespace
}  // namespace sparsify
