// W over transposed panels of tokens, one body for every vector type V, for float and for int8 weights.
//
// Lanes are rows of X (tokens). A panel of up to 64 rows is transposed once, so that one non-zero w[k, c] is a
// broadcast of w and, for every V::kLanes rows, one FMA with the panel's row k: nothing is padded, unstructured
// weights cost what their non-zeros cost. AVX2: 8 sums, the weight and a memory operand: FMA ports (two a cycle) and
// load ports (two a cycle) are both full. NEON: 16 sums of 32 registers, a load (half an LDP) an FMA.
//
// Rounding, float: one FMA a non-zero in order of k, |error| <= (nnz + 1) u sum |x w| with u = 2^-24.
//
// int8 (kInteger): the panel holds q - z, integers within +-255, as floats. Sums of at most kMostExact products with
// weights within +-128 stay within 2^24: every FMA is exact and the sum is the integer sum((q - z) w) that the
// definition asks for. Where there is no dot product instruction an FMA does as many products as vpmaddubsw, vpmaddwd
// and vpaddd together do in 24 of 32 lanes, and it needs no permute: see int8_choice-inl.h.
#pragma once

#include <algorithm>
#include <cstring>

#include "contract.h"
#include "epilogue-inl.h"
#include "panel_weights.h"
#include "quantize-inl.h"

namespace sparsify {

template <class V, bool kInteger>
class Panel final : public Product {
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kTokens = PanelWeights::kTokens, kBlock = PanelWeights::kBlock;
  static constexpr int64_t kChunk = PanelWeights::kChunk;
  using Weight = std::conditional_t<kInteger, int8_t, float>;

 public:
  static constexpr int64_t kMostExact = (1 << 24) / (255 * 128);  // non-zeros of a column: 514

  // kInteger: no column has more than kMostExact non-zeros.
  Panel(const Csc<Weight>& w, const Epilogue& epilogue)
      : weights_(pack_panel(w, epilogue)), activation_(epilogue.activation) {}

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    const int64_t panels = (rows + kTokens - 1) / kTokens;
    const int64_t size = (weights_.k + 1) * kTokens;  // floats: a header, and the panel
    auto* memory = reinterpret_cast<float*>(scratch(panels * size * static_cast<int64_t>(sizeof(float))));
    const auto rows_of = [&](int64_t p) { return std::min(kTokens, rows - p * kTokens); };
    pool.each(panels, [&](int64_t p) {
      float* header = memory + p * size;
      const float* from = x + p * kTokens * weights_.k;
      for (int64_t m = 0; m < rows_of(p); m += kLanes) {
        fill(from + m * weights_.k, std::min<int64_t>(kLanes, rows_of(p) - m), round_up(rows_of(p), kLanes), header + m);
      }
    });
    // A task is all panels of one chunk: its weights stay in cache.
    pool.each(weights_.chunks, [&](int64_t chunk) {
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t at = p * kTokens * weights_.n;
        const float* added = residual == nullptr ? nullptr : residual + at;
        multiply<kTokens / kLanes>(chunk, memory + p * size, rows_of(p), added, y + at);
      }
    });
  }

  int64_t bytes() const override { return weights_.size(); }

 private:
  // Up to kLanes rows of x to lanes 0 to kLanes - 1 behind `header`, in a panel of `lanes` lanes. The header gets, float:
  // 0, or NaN for a row with a NaN or an infinity, which a dense product would meet as 0 * infinity; int8: s.
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
        if (r < rows) v[r] = k - i >= kLanes ? V::load(x + r * k + i) : V::load_first(x + r * k + i, k - i);
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

  // q - z = clip(round(x inverse), -z, 255 - z): the same integers as in quantize.h.
  static typename V::Float quantized(typename V::Float x, const RowScale& row) {
    const auto low = static_cast<float>(-row.zero_point);
    const auto rounded = V::round(V::mul(x, V::set(row.inverse)));
    return V::max(V::set(low), V::min(V::set(low + 255.0f), rounded));
  }

  // Adds the products of one chunk of columns with a panel of R * kLanes lanes to `sum`.
  template <int R>
  void accumulate(int64_t chunk, const float* panel, float (&sum)[kChunk][kLanes * R]) const {
    const float* value = weights_.value.get() + weights_.offset[chunk];
    const uint8_t* row = weights_.row.get() + weights_.offset[chunk];
    const uint8_t* count = weights_.count.data() + chunk * weights_.blocks * kChunk;
    for (int64_t block = 0; block < weights_.blocks; ++block, panel += kBlock * kLanes * R) {
      for (int64_t c = 0; c < kChunk; ++c) {
        const int nnz = *count++;
        typename V::Float total[R];
        for (int r = 0; r < R; ++r) total[r] = V::load(sum[c] + kLanes * r);
        for (int i = 0; i < nnz; ++i) {
          const auto w = V::set(value[i]);
          const float* x = panel + static_cast<int64_t>(row[i]) * kLanes * R;
          for (int r = 0; r < R; ++r) total[r] = V::fma(V::load(x + kLanes * r), w, total[r]);
        }
        value += nnz;
        row += nnz;
        for (int r = 0; r < R; ++r) V::store(sum[c] + kLanes * r, total[r]);
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

    const int64_t first = chunk * kChunk, columns = std::min(kChunk, weights_.n - first);
    for (int64_t c = 0; c < columns; c += kLanes) {
      const auto scale = V::load(weights_.scale.data() + first + c), bias = V::load(weights_.bias.data() + first + c);
      for (int64_t m = 0; m < rows; m += kLanes) {
        typename V::Float v[kLanes];
        for (int i = 0; i < kLanes; ++i) v[i] = V::load(sum[c + i] + m);
        V::transpose(v);
        for (int64_t i = 0; i < std::min<int64_t>(kLanes, rows - m); ++i) {
          if constexpr (kInteger) v[i] = V::mul(V::mul(v[i], V::set(header[m + i])), scale);
          auto out = activate<V>(V::add(v[i], bias), activation_);
          const int64_t at = (m + i) * weights_.n + first + c;
          if (residual != nullptr) out = V::add(out, V::load_first(residual + at, columns - c));
          columns - c >= kLanes ? V::store(y + at, out) : V::store_first(y + at, columns - c, out);
        }
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
