// W as it comes to kernels that pack: in columns for those who ask. Dense weights are a bitmask that lacks few, and are
// packed as they stand: their columns would be five times as many bytes, and took seven times as long.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "contract.h"
#include "decode.h"

namespace sparsify {

template <class T>
class Weights {
 public:
  Weights() = default;
  Weights(Csc<T> columns) : k_(columns.k), n_(columns.n), columns_(std::move(columns)) {}

  // Checks `in` and keeps what it refers to, which must outlive this. Returns an empty string, or what is wrong.
  std::string read(const Encoded& in);

  int64_t k() const { return k_; }
  int64_t n() const { return n_; }

  // Zeros that the file gives as values count while nobody has asked for columns.
  int64_t nnz() const { return nearly_dense() == nullptr ? columns_.nnz() : in_.count; }

  // Not for several threads at once: the columns are made when somebody asks.
  const Csc<T>& columns() const;

  // The bitmask while nobody has asked for columns, if it has at least three of four weights; else null.
  const Encoded* nearly_dense() const { return in_.values == nullptr ? nullptr : &in_; }

 private:
  int64_t k_ = 0, n_ = 0;
  mutable Encoded in_{};
  mutable Csc<T> columns_;
};

// Rows of a bitmask in order, zeros and all. T: the bits of a weight.
template <class T>
class DenseRows {
 public:
  // `in` was checked, and must outlive this.
  explicit DenseRows(const Encoded& in) : in_(in), value_(static_cast<const T*>(in.values)) {}

  // The next `rows` rows to out [rows, stride]; what is behind the last column is left as it is.
  void next(int64_t rows, int64_t stride, T* out);

 private:
  const Encoded& in_;
  const T* value_;
  int64_t row_ = 0;
};

}  // namespace sparsify
