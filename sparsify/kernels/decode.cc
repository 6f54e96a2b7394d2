#include "decode.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace sparsify {
namespace {

// Calls visit(row, column, index of the value) in row-major order. False: a position lies outside.
template <class Visit>
bool visit_bitmask(const Encoded& in, Visit visit) {
  const auto* mask = static_cast<const uint8_t*>(in.positions);
  int64_t row = 0, column_of_byte = 0, index = 0;
  for (int64_t byte = 0; byte < in.position_count; ++byte) {
    for (unsigned bits = mask[byte]; bits != 0; bits &= bits - 1) {
      int64_t column = column_of_byte + __builtin_ctz(bits), r = row;
      while (column >= in.n) column -= in.n, ++r;
      if (r >= in.k || index >= in.count) return false;
      visit(r, column, index++);
    }
    column_of_byte += 8;
    while (column_of_byte >= in.n) column_of_byte -= in.n, ++row;
  }
  return index == in.count;
}

template <class Gap, class Visit>
bool visit_delta(const Encoded& in, Visit visit) {
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
bool visit_all(const Encoded& in, Visit visit) {
  if (in.encoding == Encoding::kBitmask) return visit_bitmask(in, visit);
  if (in.gap_type == GapType::kUint8) return visit_delta<uint8_t>(in, visit);
  if (in.gap_type == GapType::kUint16) return visit_delta<uint16_t>(in, visit);
  return visit_delta<int32_t>(in, visit);
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

template <class T>
std::string decode(const Encoded& in, Csc<T>* out) {
  if (in.encoding == Encoding::kColumns) return "gaps of columns are for kernels of columns";
  if (in.encoding == Encoding::kRows) return "weights without positions are for kernels of rows";
  if (std::string wrong = wrong_shape(in); !wrong.empty()) return wrong;
  if (in.k > kMostInputs || in.k > kMostWeights / in.n) {
    return "a matrix of shape [" + std::to_string(in.k) + ", " + std::to_string(in.n) + "] is too large to be packed";
  }
  const bool bitmask = in.encoding == Encoding::kBitmask;
  const int64_t expected = bitmask ? (in.k * in.n + 7) / 8 : in.count;
  if (in.position_count != expected) {
    return std::string(bitmask ? "the bitmask has " : "the gaps number ") + std::to_string(in.position_count) +
           (bitmask ? " bytes" : "") + ", expected " + std::to_string(expected);
  }
  const auto* values = static_cast<const T*>(in.values);
  out->k = in.k;
  out->n = in.n;
  out->start.assign(static_cast<size_t>(in.n) + 1, 0);
  auto count = [&](int64_t, int64_t column, int64_t i) { out->start[column + 1] += values[i] != T(0); };
  if (!visit_all(in, count)) return "positions and values do not describe a matrix of this shape";
  for (int64_t c = 0; c < in.n; ++c) {
    if (std::is_same_v<T, int8_t> && out->start[c + 1] > kMostInColumn) {
      return "column " + std::to_string(c) + " has more non-zeros than an int32 accumulator can sum";
    }
    out->start[c + 1] += out->start[c];
  }

  out->row.resize(static_cast<size_t>(out->start[in.n]));
  out->value.resize(static_cast<size_t>(out->start[in.n]));
  std::vector<int64_t> next(out->start.begin(), out->start.end() - 1);
  visit_all(in, [&](int64_t row, int64_t column, int64_t i) {
    if (values[i] == T(0)) return;
    const int64_t at = next[column]++;
    out->row[at] = static_cast<int32_t>(row);
    out->value[at] = values[i];
  });
  return "";
}

template std::string decode<float>(const Encoded&, Csc<float>*);
template std::string decode<int8_t>(const Encoded&, Csc<int8_t>*);
template std::string decode<uint16_t>(const Encoded&, Csc<uint16_t>*);

}  // namespace sparsify
