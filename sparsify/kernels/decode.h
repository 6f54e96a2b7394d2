// From the canonical encodings of sparsify/formats.py to compressed sparse columns, checking every byte:
// whatever a file holds, what leaves here has positions inside the matrix.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "contract.h"

namespace sparsify {

enum class Encoding { kBitmask, kDelta, kColumns, kRows };

// Type of the elements of the gaps.
enum class GapType { kUint8, kUint16, kInt32 };

struct Encoded {
  Encoding encoding;
  int64_t k, n;
  const uint8_t* high = nullptr;      // kColumns: [high_count], 1 or count, high parts of the gaps
  int64_t high_count = 0;
  const void* positions = nullptr;    // bitmask bytes, or gaps (kColumns: their low parts)
  int64_t position_count = 0;         // bytes of the bitmask, or number of gaps
  GapType gap_type = GapType::kUint8;  // kDelta, kColumns
  const void* values = nullptr;       // float, int8_t or bits of bfloat16 [count]
  int64_t count = 0;

  int64_t position_bytes() const {
    const int64_t gap = gap_type == GapType::kUint8 ? 1 : gap_type == GapType::kUint16 ? 2 : 4;
    return position_count * (encoding == Encoding::kBitmask ? 1 : gap);
  }
};

// Non-zeros of an int8 column that an int32 accumulator can sum, each up to 255 * 128: 65,793.
constexpr int64_t kMostInColumn = std::numeric_limits<int32_t>::max() / (255 * 128);

// Packed layouts other than COLUMNS have 10 bytes for each block and group of columns (16 x 8 on AVX2), whatever stands
// there, and gaps of 32 bits claim any number of both in a few bytes of file. Real layers stay below: 2^32 weights are
// 320 MiB of such bytes, 2^22 inputs 16 MiB in a single row of X.
constexpr int64_t kMostWeights = int64_t{1} << 32;
constexpr int64_t kMostInputs = int64_t{1} << 22;

// What is wrong with the shape; empty if nothing.
std::string wrong_shape(const Encoded& in);

// What is wrong with the numbers of a bitmask or of gaps; empty if nothing. What they say is still to be checked.
std::string wrong_size(const Encoded& in);

constexpr const char* kNoMatrix = "positions and values do not describe a matrix of this shape";

// What is wrong with an encoding of kRows, which has all weights and no positions; empty if nothing.
std::string wrong_rows(const Encoded& in);

// Fills `out`; returns an empty string, or what is wrong with the encoding, which must be a bitmask or gaps.
template <class T>
std::string decode(const Encoded& in, Csc<T>* out);

}  // namespace sparsify
