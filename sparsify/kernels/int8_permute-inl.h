// int8 W by register permutes, one body for every ISA whose permute reaches a block of 16 or 64 inputs.
//
// L wraps an ISA's registers of 4 kColumns bytes (Bytes) and of kColumns int32 sums (Sum):
//   Vector            float lanes for quantising and the epilogue; a Sum has kParts of its registers
//   kLayout, kRows    see int8_stream.h; rows of a tile, so that its sums stay in registers
//   kRegister         bytes of a vector register: Bytes is one or more
//   kPanelOverhead    see int8_choice-inl.h, where it is used
//   kSigned           the dot product takes s8 activations: q - 128 (see quantize_row)
//   table(q)          kLayout.block inputs at q, which is aligned to nothing, ready to be picked from
//   pick(t, p)        bytes of the block at positions p
//   quad(q)           4 inputs at q, for every column
//   dot(s, x, w)      s + sums of 4 products, exact
//
// Lanes are output columns, so activations stay row-major and outputs come out row-major, whatever the number of rows.
// A tile is kRows rows by one group of columns. Tails: quantised rows are readable up to a multiple of 64 and what lies
// behind K meets zero weights; groups are padded with zero weights and cut when stored.
//
// Overflow: |sum| <= nnz(column) * 255 * 128 < 2^31, see kMostInColumn in decode.h.
#pragma once

#include <algorithm>
#include <cstring>
#include <utility>

#include "contract.h"
#include "epilogue-inl.h"
#include "int8_stream.h"
#include "quantize-inl.h"
#include "tasks.h"

namespace sparsify {

template <class L>
class Int8Permute final : public Int8Product {
  using V = typename L::Vector;

 public:
  Int8Permute(const Weights<int8_t>& w, const Epilogue& epilogue)
      : stream_(pack_int8(w, epilogue, L::kLayout)), activation_(epilogue.activation) {}

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    const QuantizedRoom room(rows, stream_.k, copies());
    const auto quantize = [&](int64_t m) {
      quantize_row<V, L::kSigned>(x, m, stream_.k, room);
      pair_up(room, m);
    };
    multiply(room.rows(), rows, false, quantize, residual, y, pool);
  }

  void run(const Quantized& x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    if (!L::kSigned && copies() == 1 && stream_.k % kAlignment == 0) {
      return multiply(in_place(x, rows, stream_.k), rows, true, [](int64_t) {}, residual, y, pool);
    }
    const QuantizedRoom room(rows, stream_.k, copies());
    const auto take = [&](int64_t m) {
      take_row<L::kSigned>(x, m, stream_.k, room);
      pair_up(room, m);
    };
    multiply(room.rows(), rows, false, take, residual, y, pool);
  }

  int64_t bytes() const override { return stream_.size(); }

  static constexpr int64_t kPanelOverhead = L::kPanelOverhead;

  // Vector instructions of all steps for one row.
  double instructions_a_row() const {
    double total = static_cast<double>(stream_.window.size()) * L::kLayout.permute_cost;
    for (const uint8_t code : stream_.code) {
      total += (code & Int8Stream::kPlain) == 0
                   ? code * L::kLayout.permute_cost
                   : (kBlock / 4 + __builtin_popcount(code & 15u)) * L::kLayout.plain_cost;
    }
    return total * (static_cast<double>(kWidth) / L::kRegister);
  }

 private:
  static constexpr int64_t kColumns = L::kLayout.columns, kBlock = L::kLayout.block, kWidth = 4 * kColumns;

  int64_t copies() const { return stream_.plain.empty() ? 1 : Int8Stream::kPairings; }

  // y from quantised rows, when prepare(m) was called for those that are not `prepared`.
  template <class F>
  void multiply(const QuantizedRows& quantized, int64_t rows, bool prepared, F&& prepare, const float* residual, float* y,
                const Pool& pool) const {
    const auto prepare_some = [&](int64_t first, int64_t last) {
      for (int64_t m = first; m < last; ++m) prepare(m);
    };
    in_tasks(rows, stream_.k, prepared, stream_.offset.back(), stream_.groups, pool, prepare_some,
             [&](int64_t first, int64_t last, int64_t group, int64_t end) {
               for (int64_t m = first; m < last; m += L::kRows) {
                 for (int64_t g = group; g < end; ++g) {
                   tile<L::kRows>(g, quantized, m, std::min<int64_t>(L::kRows, last - m), residual, y);
                 }
               }
             });
  }

  // sum[r] += row r of the inputs at q times the weights of the permute step at w.
  template <int R>
  static void permuted_step(const uint8_t* w, const uint8_t* q, int64_t stride, typename L::Sum (&sum)[R]) {
    const auto position = L::load(w), weight = L::load(w + kWidth);
    for (int r = 0; r < R; ++r) sum[r] = L::dot(sum[r], L::pick(L::table(q + r * stride), position), weight);
  }

  // The same for the plain step at w and 4 inputs at q.
  template <int R>
  static void plain_step(const uint8_t* w, const uint8_t* q, int64_t stride, typename L::Sum (&sum)[R]) {
    const auto weight = L::load(w);
    for (int r = 0; r < R; ++r) sum[r] = L::dot(sum[r], L::quad(q + r * stride), weight);
  }

  // sum[r] += row r of q times the group.
  template <int R>
  void accumulate(int64_t group, const uint8_t* q, int64_t stride, typename L::Sum (&sum)[R]) const {
    const uint8_t* w = stream_.bytes.data() + stream_.offset[group];
    const int64_t windows = stream_.windows(group);
    const uint32_t* window = stream_.window.data() + stream_.first_window[group];
    for (int64_t i = 0; i < windows; ++i, w += 2 * kWidth) permuted_step(w, q + window[i], stride, sum);
    if (windows == 0) accumulate_blocks(group, w, q, stride, sum);
  }

  template <int R>
  void accumulate_blocks(int64_t group, const uint8_t* w, const uint8_t* q, int64_t stride,
                         typename L::Sum (&sum)[R]) const {
    const uint8_t* code = stream_.code.data() + group * stream_.blocks;
    const uint32_t* plain = stream_.plain.data() + stream_.first_plain[group];
    const uint32_t* end = stream_.plain.data() + stream_.first_plain[group + 1];
    for (int64_t b = 0; b < stream_.blocks; ++b) {
      const uint8_t* block = q + b * kBlock;
      if ((code[b] & Int8Stream::kPlain) == 0) {
        for (int i = 0; i < code[b]; ++i, w += 2 * kWidth) permuted_step(w, block, stride, sum);
        continue;
      }
      for (int i = 0; i < kBlock / 4; ++i, w += kWidth) {
        plain_step(w, L::kLayout.pairs_in_16_bits ? q + *plain++ : block + 4 * i, stride, sum);
      }
    }
    for (; plain < end; ++plain, w += kWidth) plain_step(w, q + *plain, stride, sum);
  }

  // Behind the inputs of row m, the same in the order of every other pairing, where plain steps read those.
  void pair_up(const QuantizedRoom& room, int64_t m) const {
    if (stream_.plain.empty()) return;
    uint8_t* q = room.q + m * room.stride;
    const int64_t width = room.width;
    for (int64_t i = 0; i < width; i += 4) {
      uint32_t in;
      std::memcpy(&in, q + i, sizeof in);
      const uint32_t first = in & 0xff, moved = in << 8;
      const uint32_t outer = (in & 0xff000000) | (in >> 8 & 0xff00) | (moved & 0xff0000) | first;  // 0 2 1 3
      const uint32_t turned = (moved & 0xffff0000) | (in >> 16 & 0xff00) | first;                  // 0 3 1 2
      std::memcpy(q + width + i, &outer, sizeof outer);
      std::memcpy(q + 2 * width + i, &turned, sizeof turned);
    }
  }

  template <int R>
  void tile(int64_t group, const QuantizedRows& in, int64_t m, const float* residual, float* y) const {
    typename L::Sum sum[R];
    for (auto& row : sum) row = L::zero();
    accumulate(group, in.q + m * in.stride, in.stride, sum);
    for (int part = 0; part < L::kParts; ++part) {
      const int64_t c = group * kColumns + part * V::kLanes;
      if (c >= stream_.n) return;
      const auto column_sum = V::load_int(stream_.column_sum.get() + c);
      const auto scale = V::load(stream_.scale.get() + c), bias = V::load(stream_.bias.get() + c);
      for (int r = 0; r < R; ++r) {
        const auto shift = V::mul(column_sum, V::set_int(in.zero_point[m + r]));
        auto v = V::to_float(V::sub(L::part(sum[r], part), shift));
        v = V::mul(V::mul(v, V::set(in.scale[m + r])), scale);
        v = activate<V>(V::add(v, bias), activation_);
        const int64_t at = (m + r) * stream_.n + c;
        if (residual != nullptr) v = V::add(v, V::load_first(residual + at, stream_.n - c));
        V::store_first(y + at, stream_.n - c, v);
      }
    }
  }

  // 1 <= rows <= R
  template <int R>
  void tile(int64_t group, const QuantizedRows& in, int64_t m, int64_t rows, const float* residual, float* y) const {
    if constexpr (R > 1) {
      if (rows < R) return tile<R - 1>(group, in, m, rows, residual, y);
    }
    tile<R>(group, in, m, residual, y);
  }

  Int8Stream stream_;
  Activation activation_;
};

}  // namespace sparsify
