// COLUMNS: W so sparse that time, memory and file may only be proportional to non-zeros, inputs and outputs.
//
// One row: a column's sum is a gather of x by stored rows, four chains of FMAs. The stream of weights and rows, 6 or 8
// bytes a weight, is read once and in order: at 20 weights a column that, and x where it leaves the caches, is the limit.
// More rows: lanes are rows of X. A panel of up to kMostLanes rows is transposed once; then a weight is a broadcast and
// an FMA for every V::kLanes rows, as in panel-inl.h, but with no block structure: that would cost K N / block.
//
// Work is cut into tasks of equally many weights when packing; a column with more is several tasks, whose partial sums
// are added in order. So results do not depend on threads.
//
// Rounding: one FMA a weight in up to 4 chains, partial sums on top: |error| <= gamma_(n+1) (|x| |w| + |bias|) for a
// column of n weights (parts of 2048 and more FMAs save more roundings than they add).
#pragma once

#include <algorithm>
#include <cstring>

#include "columns_weights.h"
#include "epilogue-inl.h"

namespace sparsify {

template <class V, class Row>
class Columns final : public Product {
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kMostLanes = 32;
  static constexpr int64_t kChunk = 1 << 14;  // inputs that a task transposes or looks through
  using Task = ColumnsWeights::Task;

 public:
  explicit Columns(ColumnsWeights w) : w_(std::move(w)), row_(reinterpret_cast<const Row*>(w_.row.get())) {}

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    for (int64_t m = 0; m < rows; m += kMostLanes) {
      const int64_t some = std::min(kMostLanes, rows - m);
      const float* added = residual == nullptr ? nullptr : residual + m * w_.n;
      if (some == 1) {
        one_row(x + m * w_.k, added, y + m * w_.n, pool);
      } else {
        panel<kMostLanes / kLanes>({x + m * w_.k, added, y + m * w_.n, some}, pool);
      }
    }
  }

  int64_t bytes() const override { return w_.size(); }

 private:
  struct Rows {
    const float* x;
    const float* residual;
    float* y;
    int64_t count;
  };

  int64_t chunks() const { return (w_.k + kChunk - 1) / kChunk; }

  static float* floats(int64_t count) {
    return reinterpret_cast<float*>(scratch(count * static_cast<int64_t>(sizeof(float))));
  }

  // One row ----------------------------------------------------------------------------------------------------------

  void one_row(const float* x, const float* residual, float* y, const Pool& pool) const {
    float* partial = floats(w_.partials + chunks() + w_.k);
    const float poison = look_through(&x, partial + w_.partials, pool);
    pool.each(static_cast<int64_t>(w_.tasks.size()), [&](int64_t t) {
      const Task& task = w_.tasks[t];
      if (task.part >= 0) {
        partial[task.part] = dot(x, task.start, task.start + task.count);
        return;
      }
      constexpr int32_t kSome = 64;
      float sum[kSome];
      int64_t i = task.start;
      for (int32_t first = task.first; first < task.last; first += kSome) {
        const int32_t some = std::min(kSome, task.last - first);
        for (int32_t c = 0; c < some; ++c) {
          const int64_t end = task.start + w_.end[first + c];
          sum[c] = poison + dot(x, i, end);
          i = end;
        }
        finish(sum, first, some, residual, y);
      }
    });
    for (const ColumnsWeights::Split& split : w_.splits) {
      float sum = poison;
      for (int64_t p = 0; p < split.parts; ++p) sum += partial[split.first + p];
      finish(&sum, split.column, 1, residual, y);
    }
  }

  float dot(const float* x, int64_t i, int64_t end) const {
    float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
    for (; i + 4 <= end; i += 4) {
      a = __builtin_fmaf(x[row_[i]], w_.value[i], a);
      b = __builtin_fmaf(x[row_[i + 1]], w_.value[i + 1], b);
      c = __builtin_fmaf(x[row_[i + 2]], w_.value[i + 2], c);
      d = __builtin_fmaf(x[row_[i + 3]], w_.value[i + 3], d);
    }
    for (; i < end; ++i) a = __builtin_fmaf(x[row_[i]], w_.value[i], a);
    return (a + b) + (c + d);
  }

  // Bias, activation and residual for the columns from `first` on.
  void finish(const float* sum, int64_t first, int64_t count, const float* residual, float* y) const {
    for (int64_t c = 0; c < count; c += kLanes) {
      const int64_t left = count - c;
      const auto bias = V::load_first(w_.epilogue.bias.data() + first + c, left);
      auto v = activate<V>(V::add(V::load_first(sum + c, left), bias), w_.epilogue.activation);
      if (residual != nullptr) v = V::add(v, V::load_first(residual + first + c, left));
      V::store_first(y + first + c, left, v);
    }
  }

  // 0, or NaN when x [K] holds a NaN or an infinity: a dense product would meet 0 * infinity. A long x moves behind
  // parts [chunks], into large pages. x is what to read from then on.
  float look_through(const float** x, float* parts, const Pool& pool) const {
    constexpr int64_t kLong = 1 << 18;  // inputs: 1 MB, what a TLB of 256 and more entries covers in pages of 4 KB
    float* copy = w_.k > kLong ? parts + chunks() : nullptr;
    pool.each(chunks(), [&](int64_t chunk) {
      const int64_t first = chunk * kChunk, end = std::min(first + kChunk, w_.k);
      auto sum = V::set(0.0f);
      for (int64_t k = first; k < end; k += kLanes) {
        const auto v = V::load_first(*x + k, end - k);
        sum = V::fma(v, V::set(0.0f), sum);
        if (copy != nullptr) V::store_first(copy + k, end - k, v);
      }
      float lanes[kLanes];
      V::store(lanes, sum);
      parts[chunk] = 0.0f;
      for (const float lane : lanes) parts[chunk] += lane;
    });
    float poison = 0.0f;
    for (int64_t chunk = 0; chunk < chunks(); ++chunk) poison += parts[chunk];
    if (copy != nullptr) *x = copy;
    return poison;
  }

  // Several rows -----------------------------------------------------------------------------------------------------

  // 2 <= rows.count <= R * kLanes
  template <int R>
  void panel(const Rows& rows, const Pool& pool) const {
    if constexpr (R > 1) {
      if (rows.count <= (R - 1) * kLanes) return panel<R - 1>(rows, pool);
    }
    constexpr int64_t kWide = R * kLanes;
    float* poison = floats((chunks() + w_.partials + w_.k) * kWide);
    float* partial = poison + chunks() * kWide;
    float* tokens = partial + w_.partials * kWide;
    pool.each(chunks(), [&](int64_t chunk) { transpose<R>(rows, chunk, tokens, poison + chunk * kWide); });
    for (int64_t chunk = 1; chunk < chunks(); ++chunk) add<R>(poison, poison + chunk * kWide);
    pool.each(static_cast<int64_t>(w_.tasks.size()), [&](int64_t t) {
      const Task& task = w_.tasks[t];
      if (task.part < 0) return whole_columns<R>(task, rows, tokens, poison);
      dots<R>(tokens, nullptr, task.start, task.start + task.count, partial + task.part * kWide);
    });
    for (const ColumnsWeights::Split& split : w_.splits) {
      float sum[kLanes][kWide];
      std::memcpy(sum[0], poison, sizeof sum[0]);
      for (int64_t p = 0; p < split.parts; ++p) add<R>(sum[0], partial + (split.first + p) * kWide);
      finish<R>(sum, split.column, 1, rows);
    }
  }

  template <int R>
  static void add(float* sum, const float* other) {
    for (int r = 0; r < R; ++r) V::store(sum + r * kLanes, V::add(V::load(sum + r * kLanes), V::load(other + r * kLanes)));
  }

  // The inputs of one chunk: tokens [K, R * kLanes], lanes beyond the last row 0; and the chunk's poison by lane.
  template <int R>
  void transpose(const Rows& rows, int64_t chunk, float* tokens, float* poison) const {
    const int64_t end = std::min((chunk + 1) * kChunk, w_.k);
    for (int r = 0; r < R; ++r) {
      auto bad = V::set(0.0f);
      for (int64_t k = chunk * kChunk; k < end; k += kLanes) {
        typename V::Float v[kLanes];
        for (int64_t i = 0; i < kLanes; ++i) {
          const int64_t m = r * kLanes + i;
          v[i] = m < rows.count ? V::load_first(rows.x + m * w_.k + k, end - k) : V::set(0.0f);
        }
        V::transpose(v);
        for (int64_t j = 0; j < std::min<int64_t>(kLanes, end - k); ++j) {
          V::store(tokens + ((k + j) * R + r) * kLanes, v[j]);
          bad = V::fma(v[j], V::set(0.0f), bad);
        }
      }
      V::store(poison + r * kLanes, bad);
    }
  }

  template <int R>
  void whole_columns(const Task& task, const Rows& rows, const float* tokens, const float* poison) const {
    float sum[kLanes][R * kLanes];
    int64_t i = task.start;
    for (int64_t first = task.first; first < task.last; first += kLanes) {
      const int64_t some = std::min<int64_t>(kLanes, task.last - first);
      for (int64_t c = 0; c < some; ++c) {
        const int64_t end = task.start + w_.end[first + c];
        dots<R>(tokens, poison, i, end, sum[c]);
        i = end;
      }
      finish<R>(sum, first, some, rows);
    }
  }

  // sum = start (null for 0) + the weights [i, end) times their tokens
  template <int R>
  void dots(const float* tokens, const float* start, int64_t i, int64_t end, float* sum) const {
    constexpr int kChains = R < 4 ? 4 / R : 1;  // an FMA takes 4 cycles: fewer than 4 in flight would wait
    typename V::Float total[kChains][R];
    for (int r = 0; r < R; ++r) {
      for (int u = 0; u < kChains; ++u) total[u][r] = V::set(0.0f);
      if (start != nullptr) total[0][r] = V::load(start + r * kLanes);
    }
    for (; i + kChains <= end; i += kChains) {
      for (int u = 0; u < kChains; ++u) multiply_add<R>(tokens, i + u, total[u]);
    }
    for (; i < end; ++i) multiply_add<R>(tokens, i, total[0]);
    for (int r = 0; r < R; ++r) {
      for (int u = 1; u < kChains; ++u) total[0][r] = V::add(total[0][r], total[u][r]);
      V::store(sum + r * kLanes, total[0][r]);
    }
  }

  template <int R>
  void multiply_add(const float* tokens, int64_t i, typename V::Float (&total)[R]) const {
    const auto weight = V::set(w_.value[i]);
    const float* x = tokens + static_cast<int64_t>(row_[i]) * R * kLanes;
    for (int r = 0; r < R; ++r) total[r] = V::fma(V::load(x + r * kLanes), weight, total[r]);
  }

  // Up to kLanes columns from `first` on, of all rows: sum is [column][row].
  template <int R>
  void finish(const float (&sum)[kLanes][R * kLanes], int64_t first, int64_t columns, const Rows& rows) const {
    const auto bias = V::load_first(w_.epilogue.bias.data() + first, columns);
    for (int64_t m = 0; m < rows.count; m += kLanes) {
      typename V::Float v[kLanes];
      for (int64_t c = 0; c < kLanes; ++c) v[c] = c < columns ? V::load(sum[c] + m) : V::set(0.0f);
      V::transpose(v);
      for (int64_t i = 0; i < std::min<int64_t>(kLanes, rows.count - m); ++i) {
        auto out = activate<V>(V::add(v[i], bias), w_.epilogue.activation);
        const int64_t at = (m + i) * w_.n + first;
        if (rows.residual != nullptr) out = V::add(out, V::load_first(rows.residual + at, columns));
        V::store_first(rows.y + at, columns, out);
      }
    }
  }

  ColumnsWeights w_;
  const Row* row_;
};

template <class V>
std::unique_ptr<Product> make_columns(ColumnsWeights w) {
  if (w.near) return std::make_unique<Columns<V, uint16_t>>(std::move(w));
  return std::make_unique<Columns<V, uint32_t>>(std::move(w));
}

}  // namespace sparsify
