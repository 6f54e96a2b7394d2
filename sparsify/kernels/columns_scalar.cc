// The reference of the kernels of columns: one row, one product at a time, each rounded, in order of k. Compiled
// without auto-vectorisation. See columns-inl.h for the others.
#include "columns_weights.h"
#include "epilogue-inl.h"
#include "vector_scalar.h"

namespace sparsify {
namespace {

class ColumnsScalar final : public Product {
 public:
  explicit ColumnsScalar(ColumnsWeights w) : w_(std::move(w)) {}

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    pool.each(rows, [&](int64_t m) {
      row(x + m * w_.k, residual == nullptr ? nullptr : residual + m * w_.n, y + m * w_.n);
    });
  }

  int64_t bytes() const override { return w_.size(); }

 private:
  void row(const float* x, const float* residual, float* y) const {
    // 0, or NaN when the row holds a NaN or an infinity: a dense product would meet 0 * infinity.
    float poison = 0.0f;
    for (int64_t k = 0; k < w_.k; ++k) poison += x[k] * 0.0f;
    for (int64_t c = 0; c < w_.n; ++c) y[c] = poison;
    for (const ColumnsWeights::Task& task : w_.tasks) {
      int64_t i = task.start;
      for (int32_t c = task.first; c < task.last; ++c) {
        const int64_t end = task.part < 0 ? task.start + w_.end[c] : task.start + task.count;
        for (; i < end; ++i) y[c] += x[row_of(i)] * w_.value[i];
      }
    }
    for (int64_t c = 0; c < w_.n; ++c) {
      y[c] = activate<ScalarLanes>(y[c] + w_.epilogue.bias[c], w_.epilogue.activation);
      if (residual != nullptr) y[c] += residual[c];
    }
  }

  int64_t row_of(int64_t i) const {
    const void* row = w_.row.get();
    return w_.near ? static_cast<const uint16_t*>(row)[i] : static_cast<const uint32_t*>(row)[i];
  }

  ColumnsWeights w_;
};

}  // namespace

std::unique_ptr<Product> columns_scalar(ColumnsWeights w) { return std::make_unique<ColumnsScalar>(std::move(w)); }

}  // namespace sparsify
