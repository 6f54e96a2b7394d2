// W times a few rows, from the weights of a panel kernel (panel_weights.h). A panel's lanes are rows, most of them idle
// here; instead lanes are non-zeros of a column:
//
//   total[column][lane] += value[i] x[row[i]]    for the non-zeros i of a run, V::kLanes at a time
//
// x[row[i]] is picked out of registers: a block of 128 inputs is 8 of them (AVX-512), and 4 permutes of two registers
// and 3 blends take any 16. That is .9 ns on Zen 5 where gathering from memory takes 4.6. At the end the lanes of a
// column are added up, 16 columns at a time.
//
// Rounding: a product passes the FMAs of its lane, at most as many as the lane has non-zeros, and then sums with other
// lanes, of which only those with non-zeros can round: |error| <= gamma_(nnz + 1) sum |x w|, as in any order.
#pragma once

#include <algorithm>

#include "contract.h"
#include "epilogue-inl.h"
#include "panel_weights.h"

namespace sparsify {

template <class V>
class FewRows {
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kChunk = PanelWeights::kChunk;

 public:
  // Rows up to which this is faster than panels (768x3072, Zen 5). Of 256 inputs it takes twice as long to pick.
  static int64_t most(const PanelWeights& w) { return w.block <= V::Table::kInputs ? 3 : 1; }

  // 1 <= rows <= most(w)
  static void run(const PanelWeights& w, Activation activation, const float* x, int64_t rows, const float* residual,
                  float* y, const Pool& pool) {
    pool.each(w.chunks, [&](int64_t chunk) {
      for (int64_t m = 0; m < rows; ++m) {
        const float* added = residual == nullptr ? nullptr : residual + m * w.n;
        multiply(w, chunk, activation, x + m * w.k, added, y + m * w.n);
      }
    });
  }

 private:
  static void multiply(const PanelWeights& w, int64_t chunk, Activation activation, const float* x,
                       const float* residual, float* y) {
    alignas(64) float total[kChunk][kLanes] = {};
    auto poison = V::set(0.0f);  // NaN once x holds a NaN or an infinity, which a dense product would meet as 0 * infinity
    const float* value = w.value.get() + w.offset[chunk];
    const uint8_t* row = w.row.get() + w.offset[chunk];
    const PanelWeights::Run* run = w.run.get() + chunk * w.blocks * kChunk;
    for (int64_t k = 0; k < w.k; k += w.block) {
      const typename V::Table low(x + k, w.k - k, &poison);
      if (w.block <= V::Table::kInputs) {
        add_runs(value, row, run, total, [&](typename V::Int at) { return low.pick(at); });
        continue;
      }
      const typename V::Table high(x + k + V::Table::kInputs, w.k - k - V::Table::kInputs, &poison);
      add_runs(value, row, run, total, [&](typename V::Int at) { return V::Table::pick_of_two(low, high, at); });
    }
    finish(w, chunk, activation, total, V::sum(poison), residual, y);
  }

  // The runs of one block; advances value, row and run behind them.
  template <class Pick>
  static void add_runs(const float*& value, const uint8_t*& row, const PanelWeights::Run*& run,
                       float (&total)[kChunk][kLanes], Pick pick) {
    for (int64_t visit = 0; visit < kChunk; ++visit, ++run) {
      const int64_t nnz = run->count;
      float* column = total[run->column];
      auto sum = V::load(column);
      int64_t i = 0;
      for (; i + kLanes <= nnz; i += kLanes) {
        sum = V::fma(V::load(value + i), pick(V::load_bytes(row + i)), sum);
      }
      if (i < nnz) {
        sum = V::fma(V::load_first(value + i, nnz - i), pick(V::load_first_bytes(row + i, nnz - i)), sum);
      }
      V::store(column, sum);
      value += nnz;
      row += nnz;
    }
  }

  static void finish(const PanelWeights& w, int64_t chunk, Activation activation, const float (&total)[kChunk][kLanes],
                     float poison, const float* residual, float* y) {
    const int64_t end = std::min((chunk + 1) * kChunk, w.n);
    for (int64_t c = chunk * kChunk; c < end; c += kLanes) {
      typename V::Float v[kLanes];
      for (int i = 0; i < kLanes; ++i) v[i] = V::load(total[c % kChunk + i]);
      V::transpose(v);
      for (int half = kLanes / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) v[i] = V::add(v[i], v[i + half]);
      }
      const auto bias = V::add(V::load(w.bias.data() + c), V::set(poison));
      auto out = activate<V>(V::add(v[0], bias), activation);
      if (residual != nullptr) out = V::add(out, V::load_first(residual + c, end - c));
      V::store_first(y + c, end - c, out);
    }
  }
};

}  // namespace sparsify
