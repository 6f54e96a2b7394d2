// int8 W by the permute kernel of an ISA, and by panels of exact floats where and when those are faster.
//
// Without VBMI a permute reaches 16 inputs only, and few of them are of use to every column at once (slide.h):
// the sparser, the fewer. Panels cost an FMA a non-zero. Counted in vector instructions for 16 inputs, 8 columns and a
// row at AVX2, weights balanced over 64 inputs (docs/kernels.md measures):
//
//   sparsity                   50 %   75 %   87.5 %   93.75 %
//   vpshufb, vpmaddubsw ...     8.4    5.3     4.1      3.7
//   vpshufb, vpdpbusd           4.0    2.7     2.0      1.9
//   panels                      8.0    4.0     2.0      1.0
//
// But the lanes of a panel are rows, and a narrow panel leaves the FMA pipes waiting: a non-zero costs an FMA for every
// kLanes rows and kPanelOverhead more. So the permute kernel always stands by, and the panels are packed as well only where
// they win with many rows.
#pragma once

#include <memory>

#include "int8_permute-inl.h"
#include "panel-inl.h"
#include "weights.h"

namespace sparsify {

// P: Int8Permute of an ISA; V: its float lanes.
template <class P, class V>
class Int8Choice final : public Int8Product {
 public:
  Int8Choice(const Weights<int8_t>& w, const Epilogue& epilogue)
      : permute_(w, epilogue), permute_cost_(permute_.instructions_a_row()) {
    // A chunk's partial sums are loaded and stored once for each block: as two non-zeros.
    panel_steps_ = static_cast<double>(w.nnz() + 2 * w.n() * ((w.k() + 127) / 128));
    if (!panels_win(PanelWeights::kTokens)) return;
    const Csc<int8_t>& columns = w.columns();
    int64_t fullest = 0;
    for (int64_t c = 0; c < w.n(); ++c) fullest = std::max(fullest, columns.start[c + 1] - columns.start[c]);
    if (fullest <= Panels::kMostExact) panels_ = std::make_unique<Panels>(columns, epilogue);
  }

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    run_either(x, rows, residual, y, pool);
  }

  void run(const Quantized& x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    run_either(x, rows, residual, y, pool);
  }

  int64_t bytes() const override { return permute_.bytes() + (panels_ != nullptr ? panels_->bytes() : 0); }

 private:
  using Panels = Panel<V, true>;

  // X: const float*, or Quantized.
  template <class X>
  void run_either(const X& x, int64_t rows, const float* residual, float* y, const Pool& pool) const {
    const bool panels = panels_ != nullptr && panels_win(rows);
    panels ? panels_->run(x, rows, residual, y, pool) : permute_.run(x, rows, residual, y, pool);
  }

  bool panels_win(int64_t rows) const {
    const int64_t panels = (rows + PanelWeights::kTokens - 1) / PanelWeights::kTokens;
    const int64_t registers = (rows + V::kLanes - 1) / V::kLanes;
    const double panel_cost = static_cast<double>(registers + P::kPanelOverhead * panels) * panel_steps_;
    return panel_cost < static_cast<double>(rows) * permute_cost_;
  }

  P permute_;
  double permute_cost_;  // vector instructions a row
  double panel_steps_;   // broadcasts of a panel
  std::unique_ptr<Panels> panels_;  // null where they never win
};

}  // namespace sparsify
