// ROWS: a dense W of which only the rows are read whose input is not 0 in this very X.
//
// Up to kMostRows rows of X share one pass over W. First the inputs that are not 0 in all of them are listed, with their
// values; then tasks of 512 to 2048 columns each add up the listed rows of W, four at a time: a load of W and an FMA for
// every V::kLanes columns, sums in the first cache. So with a share d of inputs that are not 0 a single row reads
// d K N numbers, and memory is the limit. W is not packed: nothing is copied when a session is made.
//
// Rounding: one FMA for each input in order, then the bias: |error| <= gamma_(n+1) (|x| |w| + |bias|) for n inputs that
// are not 0, one more for a scale; numbers of bfloat16 and int8 become float exactly.
#pragma once

#include <algorithm>

#include "bf16.h"
#include "epilogue-inl.h"
#include "rows_weights.h"
#include "scratch.h"

namespace sparsify {

template <class V, class W>  // W: float, uint16_t for the bits of bfloat16, or int8_t, of which a column has a scale
class Rows final : public Product {
  static constexpr int kLanes = V::kLanes;
  static constexpr int kMostRows = 8;          // of a tile: 16 KB of sums, half of the first cache
  // Columns of a task of R rows: pieces of W as long as sums in the first cache allow. W out of memory, one row, bfloat16,
  // 90 % zeros in 4096x4096: 0.45 ms with 512 of them, 0.32 ms with 2048 (Zen 3).
  template <int R>
  static constexpr int64_t kColumns = R >= 4 ? 512 : 2048 / R;
  static constexpr int kGroup = 4;             // rows of W that share the loads and stores of their sums
  using Float = typename V::Float;

 public:
  explicit Rows(RowsWeights w) : w_(std::move(w)), value_(static_cast<const W*>(w_.value)) {
    prefer_huge_pages(const_cast<void*>(w_.value), bytes(), true);  // its rows are read here and there
  }

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    for (int64_t m = 0; m < rows; m += kMostRows) {
      const float* added = residual == nullptr ? nullptr : residual + m * w_.n;
      tile<kMostRows>(x + m * w_.k, std::min<int64_t>(kMostRows, rows - m), added, y + m * w_.n, pool);
    }
  }

  int64_t bytes() const override { return w_.k * w_.n * static_cast<int64_t>(sizeof(W)); }

 private:
  template <int R>
  struct Tile {
    const int32_t* input;  // [used] which inputs are not 0
    const float* factor;   // [used, R] their values
    int64_t used;
    float poison[R];  // 0, or NaN for a row that holds a NaN or an infinity
    const float* residual;
    float* y;
  };

  template <int R>
  void tile(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const {
    if constexpr (R > 1) {
      if (rows < R) return tile<R - 1>(x, rows, residual, y, pool);
    }
    auto* factor = reinterpret_cast<float*>(scratch(w_.k * 4 * (R + 1)));
    auto* input = reinterpret_cast<int32_t*>(factor + w_.k * R);
    Tile<R> t{input, factor, 0, {}, residual, y};
    for (int64_t k = 0; k < w_.k; ++k) {
      bool any = false;
      for (int r = 0; r < R; ++r) {
        const float v = x[r * w_.k + k];
        factor[t.used * R + r] = v;
        any |= v != 0.0f;
        t.poison[r] += v * 0.0f;
      }
      input[t.used] = static_cast<int32_t>(k);
      t.used += any;
    }
    constexpr int64_t kSome = kColumns<R>;
    pool.each((w_.n + kSome - 1) / kSome, [&](int64_t task) {
      columns<R>(t, task * kSome, std::min(kSome, w_.n - task * kSome));
    });
  }

  template <int R>
  void columns(const Tile<R>& t, int64_t first, int64_t count) const {
    float sum[R][kColumns<R>];
    for (int r = 0; r < R; ++r) std::fill(sum[r], sum[r] + count, t.poison[r]);
    int64_t i = 0;
    for (; i + kGroup <= t.used; i += kGroup) add<R, kGroup>(t, i, first, count, sum);
    for (; i < t.used; ++i) add<R, 1>(t, i, first, count, sum);
    for (int r = 0; r < R; ++r) finish(sum[r], first, count, r * w_.n, t.residual, t.y);
  }

  // sum += the listed rows [i, i + G) of W times their inputs
  template <int R, int G>
  void add(const Tile<R>& t, int64_t i, int64_t first, int64_t count, float (&sum)[R][kColumns<R>]) const {
    const W* w[G];
    for (int g = 0; g < G; ++g) w[g] = value_ + t.input[i + g] * w_.n + first;
    const W* next[G];  // of the rows after these: what the CPU foresees ends where a row does
    for (int g = 0; g < G; ++g) next[g] = value_ + t.input[std::min(i + G + g, t.used - 1)] * w_.n + first;
    const float* factor = t.factor + i * R;
    int64_t c = 0;
    for (; c + kLanes <= count; c += kLanes) {
      Float v[G];
      for (int g = 0; g < G; ++g) {
        v[g] = load(w[g] + c);
        __builtin_prefetch(next[g] + c);
      }
      for (int r = 0; r < R; ++r) {
        auto total = V::load(sum[r] + c);
        for (int g = 0; g < G; ++g) total = V::fma(V::set(factor[g * R + r]), v[g], total);
        V::store(sum[r] + c, total);
      }
    }
    for (; c < count; ++c) {
      for (int r = 0; r < R; ++r) {
        for (int g = 0; g < G; ++g) sum[r][c] = __builtin_fmaf(factor[g * R + r], number(w[g][c]), sum[r][c]);
      }
    }
  }

  // Bias, activation and residual; `row` is where the row of y begins.
  void finish(const float* sum, int64_t first, int64_t count, int64_t row, const float* residual, float* y) const {
    for (int64_t c = 0; c < count; c += kLanes) {
      const int64_t left = count - c, at = row + first + c;
      const auto bias = V::load_first(w_.epilogue.bias.data() + first + c, left);
      const auto total = V::load_first(sum + c, left);
      auto v = activate<V>(scaled(total, bias, first + c, left), w_.epilogue.activation);
      if (residual != nullptr) v = V::add(v, V::load_first(residual + at, left));
      V::store_first(y + at, left, v);
    }
  }

  // sum * scale + bias for the columns from `c` on.
  Float scaled(Float sum, Float bias, int64_t c, int64_t count) const {
    if constexpr (sizeof(W) == 1) return V::fma(sum, V::load_first(w_.epilogue.scale.data() + c, count), bias);
    return V::add(sum, bias);
  }

  static Float load(const float* w) { return V::load(w); }
  static Float load(const uint16_t* w) { return V::load_bf16(w); }
  static Float load(const int8_t* w) { return V::load_int8(w); }
  static float number(float w) { return w; }
  static float number(uint16_t w) { return from_bf16(w); }
  static float number(int8_t w) { return static_cast<float>(w); }

  RowsWeights w_;
  const W* value_;
};

}  // namespace sparsify
