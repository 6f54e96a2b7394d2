// W over transposed panels of tokens, one body for every vector type V, for float and for int8 weights.
//
// Lanes are rows of X (tokens). A panel of up to 64 rows is transposed once, so that one non-zero w[k, c] is a
// broadcast of w and, for every V::kLanes rows, one FMA with the panel's row k: nothing is padded, unstructured
// weights cost what their non-zeros cost. AVX2: 8 sums, the weight and a memory operand: FMA ports (two a cycle) and
// load ports (two a cycle) are both full. NEON: 16 sums of 32 registers, a load (half an LDP) an FMA.
//
// Rounding, float: one FMA a non-zero and, with few rows, sums of up to 8 chains of them. In a block of n non-zeros no
// product passes more than n roundings (of C chains: n / C FMAs, n mod C more in the first chain, C - 1 sums; below C
// the chains are empty and adding 0 is exact): |error| <= gamma_(nnz + 1) sum |x w|, as in any order of summation.
//
// int8 (kInteger): the panel holds q - z, integers within +-255, as floats. Sums of at most kMostExact products with
// weights within +-128 stay within 2^24: every FMA is exact and the sum is the integer sum((q - z) w) that the
// definition asks for. An FMA does three quarters of the products that vpmaddubsw, vpmaddwd and vpaddd do per
// instruction, and it needs no permute: see int8_choice-inl.h.
#pragma once

#include <algorithm>
#include <cstring>

#include "contract.h"
#include "epilogue-inl.h"
#include "few_rows-inl.h"
#include "panel_weights.h"
#include "quantize-inl.h"

namespace sparsify {

template <class V, bool kInteger>
class Panel final : public std::conditional_t<kInteger, Int8Product, Product> {
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kTokens = PanelWeights::kTokens, kChunk = PanelWeights::kChunk;
  using Weight = std::conditional_t<kInteger, int8_t, float>;

 public:
  static constexpr int64_t kMostExact = (1 << 24) / (255 * 128);  // non-zeros of a column: 514

  // kInteger: no column has more than kMostExact non-zeros.
  Panel(const Csc<Weight>& w, const Epilogue& epilogue)
      : weights_(pack_panel(w, epilogue)), activation_(epilogue.activation) {}

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    if constexpr (V::kPicks && !kInteger) {
      if (rows <= FewRows<V>::most(weights_)) {
        return FewRows<V>::run(weights_, activation_, x, rows, residual, y, pool);
      }
    }
    run_panels(x, rows, residual, y, pool);
  }

  // There it overrides; of float panels nobody calls it.
  void run(const Quantized& x, int64_t rows, const float* residual, float* y, const Pool& pool) const {
    static_assert(kInteger);
    run_panels(x, rows, residual, y, pool);
  }

  int64_t bytes() const override { return weights_.size(); }

 private:
  // X: const float*, or Quantized.
  template <class X>
  void run_panels(const X& x, int64_t rows, const float* residual, float* y, const Pool& pool) const {
    const int64_t panels = (rows + kTokens - 1) / kTokens;
    const int64_t size = (weights_.k + 1) * kTokens;  // floats: a header, and the panel
    auto* memory = reinterpret_cast<float*>(scratch(panels * size * static_cast<int64_t>(sizeof(float))));
    const auto rows_of = [&](int64_t p) { return std::min(kTokens, rows - p * kTokens); };
    const int64_t strips = (rows + kLanes - 1) / kLanes;  // of kLanes rows, kTokens / kLanes a panel
    const auto transpose = [&](int64_t strip) {
      const int64_t p = strip * kLanes / kTokens, m = strip * kLanes % kTokens;
      const int64_t some = std::min<int64_t>(kLanes, rows_of(p) - m);
      fill(from(x, strip * kLanes), some, round_up(rows_of(p), kLanes), memory + p * size + m);
    };
    // A task is all panels of one chunk: its weights stay in cache.
    pool.each_then_each(strips, transpose, weights_.chunks, [&](int64_t chunk) {
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t at = p * kTokens * weights_.n;
        const float* added = residual == nullptr ? nullptr : residual + at;
        multiply<kTokens / kLanes>(chunk, memory + p * size, rows_of(p), added, y + at);
      }
    });
  }

  const float* from(const float* x, int64_t m) const { return x + m * weights_.k; }
  Quantized from(const Quantized& x, int64_t m) const { return {x.q + m * weights_.k, x.scale + m, x.zero_point + m}; }

  // Up to kLanes rows of x to lanes 0 to kLanes - 1 behind `header`, in a panel of `lanes` lanes. The header gets for
  // floats 0, or NaN for a row with a NaN or an infinity, which a dense product would meet as 0 * infinity; for int8 s.
  void fill(const float* x, int64_t rows, int64_t lanes, float* header) const {
    const int64_t k = weights_.k;
    RowScale scale[kLanes] = {};
    if constexpr (kInteger) {
      for (int64_t r = 0; r < rows; ++r) scale[r] = row_scale(range_of<V>(x + r * k, k));
      for (int64_t r = 0; r < kLanes; ++r) header[r] = scale[r].scale;
    }
    auto poison = V::set(0.0f);
    float* panel = header + kTokens;
    for (int64_t i = 0; i < k; i += kLanes) {
      typename V::Float v[kLanes];
      for (int64_t r = 0; r < kLanes; ++r) {
        v[r] = V::set(0.0f);
        if (r < rows) v[r] = V::load_first(x + r * k + i, k - i);
        if constexpr (kInteger) v[r] = quantized(v[r], scale[r]);
      }
      V::transpose(v);
      for (int64_t j = 0; j < std::min<int64_t>(kLanes, k - i); ++j) {
        V::store(panel + (i + j) * lanes, v[j]);
        if constexpr (!kInteger) poison = V::fma(v[j], V::set(0.0f), poison);
      }
    }
    if constexpr (!kInteger) V::store(header, poison);
  }

  // The same of rows that are quantised.
  void fill(const Quantized& x, int64_t rows, int64_t lanes, float* header) const {
    const int64_t k = weights_.k;
    for (int64_t r = 0; r < kLanes; ++r) header[r] = r < rows ? x.scale[r] : 0.0f;
    for (int64_t i = 0; i < k; i += kLanes) {
      const int64_t inputs = std::min<int64_t>(kLanes, k - i);
      typename V::Float v[kLanes];
      for (int64_t r = 0; r < kLanes; ++r) {
        float shifted[kLanes] = {};
        for (int64_t j = 0; r < rows && j < inputs; ++j) {
          shifted[j] = static_cast<float>(x.q[r * k + i + j] - x.zero_point[r]);
        }
        v[r] = V::load(shifted);
      }
      V::transpose(v);
      for (int64_t j = 0; j < inputs; ++j) V::store(header + kTokens + (i + j) * lanes, v[j]);
    }
  }

  // q - z = clip(round(x inverse), -z, 255 - z): the same integers as in quantize.h.
  static typename V::Float quantized(typename V::Float x, const RowScale& row) {
    const auto low = static_cast<float>(-row.zero_point);
    const auto rounded = V::round(V::mul(x, V::set(row.inverse)));
    return V::max(V::set(low), V::min(V::set(low + 255.0f), rounded));
  }

  // total[r] += w * x[kLanes r]: one non-zero for R * kLanes tokens.
  template <int R>
  static void multiply_add(float w, const float* x, typename V::Float (&total)[R]) {
    const auto all = V::set(w);
    for (int r = 0; r < R; ++r) total[r] = V::fma(V::load(x + kLanes * r), all, total[r]);
  }

  // Adds the products of one chunk of columns with a panel of R * kLanes lanes to `sum`.
  template <int R>
  void accumulate(int64_t chunk, const float* panel, float (&sum)[kChunk][kLanes * R]) const {
    constexpr int kAtOnce = 8;  // non-zeros, whose rows are one load, lowest byte first: loads are the limit here
    constexpr int kChains = R < 8 ? 8 / R : 1;  // an FMA takes 4 cycles and two start in each: fewer would wait
    const float* value = weights_.value.get() + weights_.offset[chunk];
    const uint8_t* row = weights_.row.get() + weights_.offset[chunk];
    const PanelWeights::Run* run = weights_.run.get() + chunk * weights_.blocks * kChunk;
    for (int64_t block = 0; block < weights_.blocks; ++block, panel += weights_.block * kLanes * R) {
      for (int64_t visit = 0; visit < kChunk; ++visit, ++run) {
        const int nnz = run->count;
        float* column = sum[run->column];
        typename V::Float total[kChains][R];
        for (int r = 0; r < R; ++r) total[0][r] = V::load(column + kLanes * r);
        for (int u = 1; u < kChains; ++u) {
          for (int r = 0; r < R; ++r) total[u][r] = V::set(0.0f);
        }
        int i = 0;
        for (; i + kAtOnce <= nnz; i += kAtOnce) {
          uint64_t rows;
          std::memcpy(&rows, row + i, sizeof rows);
          for (int u = 0; u < kAtOnce; ++u) {
            multiply_add<R>(value[i + u], panel + (rows >> 8 * u & 0xFF) * kLanes * R, total[u % kChains]);
          }
        }
        for (; i + kChains <= nnz; i += kChains) {
          for (int u = 0; u < kChains; ++u) multiply_add<R>(value[i + u], panel + row[i + u] * kLanes * R, total[u]);
        }
        for (; i < nnz; ++i) multiply_add<R>(value[i], panel + row[i] * kLanes * R, total[0]);
        for (int u = 1; u < kChains; ++u) {
          for (int r = 0; r < R; ++r) total[0][r] = V::add(total[0][r], total[u][r]);
        }
        value += nnz;
        row += nnz;
        for (int r = 0; r < R; ++r) V::store(column + kLanes * r, total[0][r]);
      }
    }
  }

  template <int R>
  void multiply(int64_t chunk, const float* header, const float* residual, float* y, int64_t rows) const {
    alignas(64) float sum[kChunk][kLanes * R];
    for (auto& column : sum) {
      if constexpr (kInteger) {
        std::memset(column, 0, sizeof column);
      } else {
        std::memcpy(column, header, sizeof column);
      }
    }
    accumulate<R>(chunk, header + kTokens, sum);

    // Where rows of y lie a multiple of 4 KB apart all share the same sets of L1, of 8 to 12 ways: stores to more rows
    // than that drive each other out before they are done (N = 3072, 90 % zeros, Zen 5: with 16 rows at once everything
    // takes 1.4 times as long as with 4).
    const int64_t at_once = weights_.n % 1024 == 0 ? 4 : kLanes;
    const int64_t first = chunk * kChunk, columns = std::min(kChunk, weights_.n - first);
    alignas(64) float turned[kLanes][kChunk];
    for (int64_t m = 0; m < rows; m += kLanes) {
      for (int64_t c = 0; c < columns; c += kLanes) {
        typename V::Float v[kLanes];
        for (int i = 0; i < kLanes; ++i) v[i] = V::load(sum[c + i] + m);
        V::transpose(v);
        const auto scale = V::load(weights_.scale.data() + first + c), bias = V::load(weights_.bias.data() + first + c);
        for (int i = 0; i < kLanes; ++i) {
          if constexpr (kInteger) v[i] = V::mul(V::mul(v[i], V::set(header[m + i])), scale);
          V::store(&turned[i][c], V::add(v[i], bias));
        }
      }
      activate<V>(turned[0], kChunk, activation_);  // kLanes rows of kChunk / kLanes registers
      const int64_t end = std::min<int64_t>(kLanes, rows - m);
      for (int64_t i = 0; i < end; i += at_once) {
        const int64_t at = (m + i) * weights_.n + first;
        store(turned[i], std::min(at_once, end - i), columns, residual == nullptr ? nullptr : residual + at, y + at);
      }
    }
  }

  // Rows of `columns` columns, with the residual if there is one.
  void store(const float* from, int64_t rows, int64_t columns, const float* residual, float* y) const {
    for (int64_t c = 0; c < columns; c += kLanes) {
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t at = i * weights_.n + c;
        auto v = V::load(from + i * kChunk + c);
        if (residual != nullptr) v = V::add(v, V::load_first(residual + at, columns - c));
        V::store_first(y + at, columns - c, v);
      }
    }
  }

  // 1 <= rows <= R * kLanes
  template <int R>
  void multiply(int64_t chunk, const float* header, int64_t rows, const float* residual, float* y) const {
    if constexpr (R > 1) {
      if (rows <= (R - 1) * kLanes) return multiply<R - 1>(chunk, header, rows, residual, y);
    }
    multiply<R>(chunk, header, residual, y, rows);
  }

  PanelWeights weights_;
  Activation activation_;
};

}  // namespace sparsify
