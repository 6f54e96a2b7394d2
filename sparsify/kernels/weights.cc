#include "weights.h"

#include <algorithm>
#include <cstring>

#include "bitmask.h"

namespace sparsify {
namespace {

constexpr int64_t kFewestRows = 64;  // below, nothing is gained

// K within kMostInColumn: then no column can hold more than an accumulator of int32 sums, see decode().
bool is_nearly_dense(const Encoded& in) {
  return in.encoding == Encoding::kBitmask && in.k >= kFewestRows && in.k <= kMostInColumn &&
         in.count >= in.k * in.n / 4 * 3;
}

bool is_matrix(const Encoded& in) {
  const Mask mask(in);
  int64_t bits = 0;
  for (int64_t r = 0; r < in.k; ++r) {
    for (int64_t c = 0; c < in.n; c += Mask::kWord) bits += count_ones(mask.word(r, c));
  }
  return bits == in.count && mask.ends(in.k * in.n);
}

// Values to the places whose bits are set, zeros to the rest of `count` <= 64; returns the value after the last. No bit
// from `count` on is set.
template <class T>
const T* expand(uint64_t bits, int64_t count, const T* value, T* out) {
  for (int64_t at = 0; at < count; at += 8, bits >>= 8) {
    const int64_t here = std::min<int64_t>(count - at, 8);
    if ((bits & 255) == 255) {  // 8 bits, so there are 8 places
      std::memcpy(out + at, value, 8 * sizeof(T));
      value += 8;
      continue;
    }
    for (int64_t i = 0; i < here; ++i) out[at + i] = (bits >> i & 1) != 0 ? *value++ : T(0);
  }
  return value;
}

}  // namespace

template <class T>
std::string Weights<T>::read(const Encoded& in) {
  k_ = in.k;
  n_ = in.n;
  in_ = {};
  if (std::string wrong = wrong_size(in); !wrong.empty()) return wrong;
  if (sizeof(T) > 2 || !is_nearly_dense(in)) return decode(in, &columns_);
  if (!is_matrix(in)) return kNoMatrix;
  in_ = in;
  return "";
}

template <class T>
const Csc<T>& Weights<T>::columns() const {
  if (nearly_dense() != nullptr) decode(in_, &columns_);  // read() has looked for all that could be wrong
  in_ = {};
  return columns_;
}

template <class T>
void DenseRows<T>::next(int64_t rows, int64_t stride, T* out) {
  const Mask mask(in_);
  for (const int64_t end = row_ + rows; row_ < end; ++row_, out += stride) {
    for (int64_t c = 0; c < in_.n; c += Mask::kWord) {
      value_ = expand(mask.word(row_, c), std::min(Mask::kWord, in_.n - c), value_, out + c);
    }
  }
}

template class Weights<float>;
template class Weights<int8_t>;
template class Weights<uint16_t>;
template class DenseRows<uint8_t>;
template class DenseRows<uint16_t>;

}  // namespace sparsify
