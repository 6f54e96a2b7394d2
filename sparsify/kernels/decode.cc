#include "decode.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "bitmask.h"

namespace sparsify {
namespace {

// Byte i of entry b is bit i of b: adding entries counts bits by column.
std::array<uint64_t, 256> spread_bits() {
  std::array<uint64_t, 256> table{};
  for (unsigned b = 0; b < 256; ++b) {
    for (unsigned i = 0; i < 8; ++i) table[b] |= uint64_t{b >> i & 1} << 8 * i;
  }
  return table;
}

// Adds the weights of each column to column[1 + c] and says with which value each row starts. Counters are bytes, which
// 255 rows cannot overflow.
std::vector<int64_t> count_bits(const Encoded& in, const Mask& mask, int64_t* column) {
  static const std::array<uint64_t, 256> kSpread = spread_bits();
  const int64_t words = (in.n + Mask::kWord - 1) / Mask::kWord;
  std::vector<uint64_t> counters(static_cast<size_t>(words) * 8, 0);
  std::vector<int64_t> row_start(static_cast<size_t>(in.k) + 1, 0);
  for (int64_t r = 0; r < in.k; ++r) {
    int64_t bits = 0;
    for (int64_t w = 0; w < words; ++w) {
      const uint64_t word = mask.word(r, w * Mask::kWord);
      bits += count_ones(word);
      for (int i = 0; i < 8; ++i) counters[w * 8 + i] += kSpread[word >> 8 * i & 255];
    }
    row_start[r + 1] = row_start[r] + bits;
    if (r % 255 != 254 && r != in.k - 1) continue;
    for (int64_t c = 0; c < in.n; ++c) column[c + 1] += static_cast<int64_t>(counters[c / 8] >> c % 8 * 8 & 255);
    std::fill(counters.begin(), counters.end(), 0);
  }
  return row_start;
}

// 64 rows of 64 columns at a time go to a buffer in L1 and from there to their columns. Columns of equal length, as
// balanced pruning makes them, may all start in the same set of a cache: writing to 64 of them in turn took 4 times as long.
template <class T>
class Transposer {
 public:
  Transposer(Csc<T>* out) : out_(out), next_(out->start.begin(), out->start.end() - 1) {}

  void put(int64_t row, int64_t column, T value) {
    const int64_t at = column * kRows + count_[column]++;
    row_[at] = static_cast<uint8_t>(row);
    value_[at] = value;
  }

  // What was put, with `row` and `column` to be added.
  void flush(int64_t row, int64_t column) {
    for (int64_t c = 0; c < std::min(Mask::kWord, out_->n - column); ++c) {
      const int64_t count = count_[c], at = next_[column + c];
      for (int64_t i = 0; i < count; ++i) out_->row[at + i] = static_cast<int32_t>(row + row_[c * kRows + i]);
      if (count > 0) std::memcpy(&out_->value[at], &value_[c * kRows], static_cast<size_t>(count) * sizeof(T));
      next_[column + c] += count;
      count_[c] = 0;
    }
  }

  static constexpr int64_t kRows = 64;

 private:
  Csc<T>* out_;
  std::vector<int64_t> next_;  // [n] where the next weight of a column goes
  uint8_t count_[Mask::kWord] = {};
  uint8_t row_[Mask::kWord * kRows];
  T value_[Mask::kWord * kRows];
};

template <class T>
void place_bits(const Encoded& in, const Mask& mask, std::vector<int64_t> row_start, Csc<T>* out) {
  const auto* values = static_cast<const T*>(in.values);
  Transposer<T> transposer(out);
  for (int64_t row = 0; row < in.k; row += Transposer<T>::kRows) {
    for (int64_t column = 0; column < in.n; column += Mask::kWord) {
      for (int64_t r = row; r < std::min(row + Transposer<T>::kRows, in.k); ++r) {
        int64_t index = row_start[r];
        for (uint64_t bits = mask.word(r, column); bits != 0; bits &= bits - 1) {
          transposer.put(r - row, __builtin_ctzll(bits), values[index++]);
        }
        row_start[r] = index;
      }
      transposer.flush(row, column);
    }
  }
}

// Calls visit(row, column, index of the value) in row-major order. False: a position lies outside.
template <class Gap, class Visit>
bool visit_gaps(const Encoded& in, Visit visit) {
  const auto* gaps = static_cast<const Gap*>(in.positions);
  int64_t row = 0, column = -1;
  for (int64_t i = 0; i < in.count; ++i) {
    if (gaps[i] < 1) return false;
    column += gaps[i];
    if (column >= in.n) row += column / in.n, column %= in.n;
    if (row >= in.k) return false;
    visit(row, column, i);
  }
  return true;
}

template <class Visit>
bool visit_delta(const Encoded& in, Visit visit) {
  if (in.gap_type == GapType::kUint8) return visit_gaps<uint8_t>(in, visit);
  if (in.gap_type == GapType::kUint16) return visit_gaps<uint16_t>(in, visit);
  return visit_gaps<int32_t>(in, visit);
}

template <class T>
void sum_and_resize(Csc<T>* out) {
  for (int64_t c = 0; c < out->n; ++c) out->start[c + 1] += out->start[c];
  out->row.resize(static_cast<size_t>(out->start[out->n]));
  out->value.resize(out->row.size());
}

// Weights of value 0, the fillers of gaps among them, leave.
template <class T>
void drop_zeros(Csc<T>* out) {
  int64_t at = 0, first = 0;
  for (int64_t c = 0; c < out->n; ++c) {
    const int64_t last = out->start[c + 1];
    for (int64_t i = first; i < last; ++i) {
      out->row[at] = out->row[i];
      out->value[at] = out->value[i];
      at += out->value[i] != T(0);
    }
    out->start[c + 1] = at;
    first = last;
  }
  out->row.resize(static_cast<size_t>(at));
  out->value.resize(static_cast<size_t>(at));
}

template <class T>
std::string decode_bitmask(const Encoded& in, Csc<T>* out) {
  const Mask mask(in);
  std::vector<int64_t> row_start = count_bits(in, mask, out->start.data());
  if (row_start.back() != in.count || !mask.ends(in.k * in.n)) return kNoMatrix;
  sum_and_resize(out);
  place_bits(in, mask, std::move(row_start), out);
  return "";
}

template <class T>
std::string decode_delta(const Encoded& in, Csc<T>* out) {
  if (!visit_delta(in, [&](int64_t, int64_t column, int64_t) { ++out->start[column + 1]; })) return kNoMatrix;
  sum_and_resize(out);
  const auto* values = static_cast<const T*>(in.values);
  std::vector<int64_t> next(out->start.begin(), out->start.end() - 1);
  visit_delta(in, [&](int64_t row, int64_t column, int64_t i) {
    const int64_t at = next[column]++;
    out->row[at] = static_cast<int32_t>(row);
    out->value[at] = values[i];
  });
  return "";
}

}  // namespace

std::string wrong_shape(const Encoded& in) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();  // so K N + 7 is an int64 as well
  if (in.k >= 1 && in.n >= 1 && in.k <= kMost && in.n <= kMost) return "";
  return "shape [" + std::to_string(in.k) + ", " + std::to_string(in.n) + "] is not a matrix that can be packed";
}

std::string wrong_rows(const Encoded& in) {
  if (in.encoding != Encoding::kRows) return "the weights are not all there: kernels of rows read no positions";
  if (std::string wrong = wrong_shape(in); !wrong.empty()) return wrong;
  if (in.k == in.count / in.n && in.count % in.n == 0) return "";
  return "the values of all rows number " + std::to_string(in.count) + ", expected " + std::to_string(in.k) + " x " +
         std::to_string(in.n);
}

std::string wrong_size(const Encoded& in) {
  if (in.encoding == Encoding::kColumns) return "gaps of columns are for kernels of columns";
  if (in.encoding == Encoding::kRows) return "weights without positions are for kernels of rows";
  if (std::string wrong = wrong_shape(in); !wrong.empty()) return wrong;
  if (in.k > kMostInputs || in.k > kMostWeights / in.n) {
    return "a matrix of shape [" + std::to_string(in.k) + ", " + std::to_string(in.n) + "] is too large to be packed";
  }
  const bool bitmask = in.encoding == Encoding::kBitmask;
  const int64_t expected = bitmask ? (in.k * in.n + 7) / 8 : in.count;
  if (in.position_count == expected) return "";
  return std::string(bitmask ? "the bitmask has " : "the gaps number ") + std::to_string(in.position_count) +
         (bitmask ? " bytes" : "") + ", expected " + std::to_string(expected);
}

template <class T>
std::string decode(const Encoded& in, Csc<T>* out) {
  if (std::string wrong = wrong_size(in); !wrong.empty()) return wrong;
  out->k = in.k;
  out->n = in.n;
  out->start.assign(static_cast<size_t>(in.n) + 1, 0);
  const bool bitmask = in.encoding == Encoding::kBitmask;
  if (std::string wrong = bitmask ? decode_bitmask(in, out) : decode_delta(in, out); !wrong.empty()) return wrong;
  const auto* values = static_cast<const T*>(in.values);
  if (std::find(values, values + in.count, T(0)) != values + in.count) drop_zeros(out);
  for (int64_t c = 0; std::is_same_v<T, int8_t> && c < in.n; ++c) {
    if (out->start[c + 1] - out->start[c] <= kMostInColumn) continue;
    return "column " + std::to_string(c) + " has more non-zeros than an int32 accumulator can sum";
  }
  return "";
}

template std::string decode<float>(const Encoded&, Csc<float>*);
template std::string decode<int8_t>(const Encoded&, Csc<int8_t>*);
template std::string decode<uint16_t>(const Encoded&, Csc<uint16_t>*);

}  // namespace sparsify
