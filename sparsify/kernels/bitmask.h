// The bitmask of an encoding (decode.h), 64 columns of a row at a time. Compiled for any CPU.
#pragma once

#include <cstdint>
#include <cstring>

#include "decode.h"

namespace sparsify {
namespace {

class Mask {
 public:
  static constexpr int64_t kWord = 64;

  explicit Mask(const Encoded& in) : bytes_(static_cast<const uint8_t*>(in.positions)), size_(in.position_count), n_(in.n) {}

  // Bit i: whether the weight in column `c + i` is there; 0 behind the last column.
  uint64_t word(int64_t row, int64_t c) const {
    const int64_t bit = row * n_ + c, byte = bit / 8, shift = bit % 8, left = n_ - c;
    uint64_t low = 0, high = 0;
    if (byte + 9 <= size_) {
      std::memcpy(&low, bytes_ + byte, 8);
      high = bytes_[byte + 8];
    } else {  // at most 8 bytes are left
      for (int64_t i = byte; i < size_; ++i) low |= uint64_t{bytes_[i]} << (i - byte) * 8;
    }
    const uint64_t bits = low >> shift | high << 1 << (63 - shift);
    return left >= kWord ? bits : bits & ((uint64_t{1} << left) - 1);
  }

  // Whether all bits behind the last weight are 0.
  bool ends(int64_t weights) const { return weights % 8 == 0 || bytes_[size_ - 1] >> weights % 8 == 0; }

 private:
  const uint8_t* bytes_;
  int64_t size_, n_;
};

// As one instruction it is not part of every CPU's.
int64_t count_ones(uint64_t v) {
  v -= v >> 1 & 0x5555555555555555;
  v = (v & 0x3333333333333333) + (v >> 2 & 0x3333333333333333);
  return static_cast<int64_t>(((v + (v >> 4)) & 0x0F0F0F0F0F0F0F0F) * 0x0101010101010101 >> 56);
}

}  // namespace
}  // namespace sparsify
