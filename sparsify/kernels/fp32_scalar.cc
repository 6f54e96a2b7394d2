// The reference of every float kernel: one row, one column, one product at a time, each rounded, in order of k. Compiled
// without auto-vectorisation.
#include "contract.h"
#include "epilogue-inl.h"
#include "vector_scalar.h"
#include "weights.h"

namespace sparsify {
namespace {

class Fp32Scalar final : public Product {
 public:
  Fp32Scalar(const Csc<float>& w, Epilogue epilogue) : w_(w), epilogue_(std::move(epilogue)) {}

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    constexpr int64_t kColumns = 256;  // a task: enough to hide its dispatch at 20 non-zeros a column
    const int64_t chunks = (w_.n + kColumns - 1) / kColumns;
    pool.each(rows * chunks, [&](int64_t task) {
      const int64_t m = task / chunks, first = task % chunks * kColumns;
      const float* added = residual == nullptr ? nullptr : residual + m * w_.n;
      multiply(x + m * w_.k, first, std::min(first + kColumns, w_.n), added, y + m * w_.n);
    });
  }

  int64_t bytes() const override { return w_.nnz() * 8; }

 private:
  void multiply(const float* x, int64_t first, int64_t last, const float* residual, float* y) const {
    // 0, or NaN when the row holds a NaN or an infinity: a dense product would meet 0 * infinity.
    float poison = 0.0f;
    for (int64_t k = 0; k < w_.k; ++k) poison += x[k] * 0.0f;
    for (int64_t c = first; c < last; ++c) {
      float sum = poison;
      for (int64_t i = w_.start[c]; i < w_.start[c + 1]; ++i) sum += x[w_.row[i]] * w_.value[i];
      y[c] = activate<ScalarLanes>(sum + epilogue_.bias[c], epilogue_.activation);
      if (residual != nullptr) y[c] += residual[c];
    }
  }

  Csc<float> w_;
  Epilogue epilogue_;
};

}  // namespace

std::unique_ptr<Product> fp32_scalar(const Weights<float>& w, Epilogue epilogue) {
  return std::make_unique<Fp32Scalar>(w.columns(), std::move(epilogue));
}

}  // namespace sparsify
