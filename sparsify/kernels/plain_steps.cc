#include "plain_steps.h"

#include <algorithm>
#include <vector>

namespace sparsify {
namespace {

// The loops of this file, free of aliases so that compilers use vectors.
template <class T>
void add_nonzeros(const T* __restrict row, int64_t width, uint8_t* __restrict count) {
  for (int64_t c = 0; c < width; ++c) count[c] = static_cast<uint8_t>(count[c] + (row[c] != 0));
}

void add_weights(const uint8_t* __restrict row, int64_t width, int16_t* __restrict sum) {
  for (int64_t c = 0; c < width; ++c) sum[c] = static_cast<int16_t>(sum[c] + static_cast<int8_t>(row[c]));
}

// [columns, S] from S rows.
template <class T>
void interleave(const T* __restrict rows, int64_t stride, int64_t columns, T* __restrict out) {
  constexpr int64_t kSlots = 4 / sizeof(T);
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t j = 0; j < kSlots; ++j) out[kSlots * c + j] = rows[j * stride + c];
  }
}

int64_t largest(const std::vector<int32_t>& values, int64_t first, int64_t last) {
  return *std::max_element(values.begin() + first, values.begin() + last);
}

// A block of inputs of all columns, and what is known of each column so far.
template <class T>
class Block {
 public:
  Block(const Encoded& in, const PlainLayout& layout, int64_t width, int32_t* sums)
      : rows_(in),
        k_(in.k),
        inputs_(layout.block),
        width_(width),
        sums_(sums),
        weights_(static_cast<size_t>(inputs_ * width), T(0)),
        count_(static_cast<size_t>(width)),
        sum_(static_cast<size_t>(sizeof(T) == 1 ? width : 0)),
        here(static_cast<size_t>(width)),
        so_far(static_cast<size_t>(width)) {
    std::fill(sums, sums + static_cast<int64_t>(sum_.size()), 0);
  }

  // Reads block b; inputs behind the last are zeros.
  void read(int64_t b) {
    const int64_t there = std::min(inputs_, k_ - b * inputs_);
    rows_.next(there, width_, weights_.data());
    std::fill(weights_.begin() + there * width_, weights_.end(), T(0));
    std::fill(count_.begin(), count_.end(), uint8_t{0});
    for (int64_t r = 0; r < there; ++r) add_nonzeros(&weights_[r * width_], width_, count_.data());
    for (int64_t c = 0; c < width_; ++c) here[c] = count_[c], so_far[c] += count_[c];
    if constexpr (sizeof(T) == 1) add_sums(there);
  }

  void write(int64_t first, int64_t columns, T* out) const {
    constexpr int64_t kSlots = 4 / sizeof(T);
    for (int64_t i = 0; i < inputs_; i += kSlots, out += kSlots * columns) {
      interleave(&weights_[i * width_ + first], width_, columns, out);
    }
  }

 private:
  void add_sums(int64_t rows) {
    std::fill(sum_.begin(), sum_.end(), int16_t{0});  // 64 weights are within +-2^13
    for (int64_t r = 0; r < rows; ++r) add_weights(&weights_[r * width_], width_, sum_.data());
    for (int64_t c = 0; c < width_; ++c) sums_[c] += sum_[c];
  }

  DenseRows<T> rows_;
  int64_t k_, inputs_, width_;
  int32_t* sums_;            // [width], int8 only
  std::vector<T> weights_;   // [inputs, width]
  std::vector<uint8_t> count_;
  std::vector<int16_t> sum_;

 public:
  std::vector<int32_t> here, so_far;  // [width] non-zeros of this block, of all until now
};

}  // namespace

template <class T>
bool pack_plain(const Encoded& in, const PlainLayout& layout, Numbers<T>* data, int32_t* sums) {
  constexpr int64_t kSlots = 4 / sizeof(T);
  const int64_t blocks = (in.k + layout.block - 1) / layout.block;
  const int64_t groups = (in.n + layout.columns - 1) / layout.columns;
  const int64_t size = layout.block * layout.columns;  // weights of a block of a group
  const auto steps_of = [&](const std::vector<int32_t>& nonzeros, int64_t group) {
    const int64_t first = group * layout.columns;
    return (largest(nonzeros, first, std::min(first + layout.columns, in.n)) + kSlots - 1) / kSlots;
  };
  Block<T> block(in, layout, groups * layout.columns, sums);
  data->resize(static_cast<size_t>(groups * blocks * size));
  for (int64_t b = 0; b < blocks; ++b) {
    block.read(b);
    for (int64_t group = 0; group < groups; ++group) {
      if (steps_of(block.here, group) * layout.step_cost < layout.block_cost) return false;
      block.write(group * layout.columns, layout.columns, data->data() + (group * blocks + b) * size);
    }
  }
  const int64_t most = blocks * layout.block_cost / layout.slide_cost;  // with fewer steps windows had better slide
  for (int64_t group = 0; group < groups; ++group) {
    if (steps_of(block.so_far, group) < most) return false;
  }
  return true;
}

template bool pack_plain(const Encoded&, const PlainLayout&, Numbers<uint8_t>*, int32_t*);
template bool pack_plain(const Encoded&, const PlainLayout&, Numbers<uint16_t>*, int32_t*);

}  // namespace sparsify
