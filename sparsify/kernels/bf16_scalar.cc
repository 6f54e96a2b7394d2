// The reference of every bf16 kernel: one row, one column, one product at a time, in order of k; products are exact,
// each sum is rounded, denormals are kept. Compiled without auto-vectorisation.
#include "bf16.h"
#include "contract.h"
#include "epilogue-inl.h"
#include "vector_scalar.h"
#include "weights.h"

namespace sparsify {
namespace {

class Bf16Scalar final : public Product {
 public:
  Bf16Scalar(const Csc<uint16_t>& w, Epilogue epilogue) : w_(w), epilogue_(std::move(epilogue)) {}

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    pool.each(rows, [&](int64_t m) {
      multiply(x + m * w_.k, residual == nullptr ? nullptr : residual + m * w_.n, y + m * w_.n);
    });
  }

  int64_t bytes() const override { return w_.nnz() * 6; }

 private:
  void multiply(const float* x, const float* residual, float* y) const {
    float poison = 0.0f;
    for (int64_t k = 0; k < w_.k; ++k) poison += round_bf16(x[k]) * 0.0f;
    for (int64_t c = 0; c < w_.n; ++c) {
      float sum = poison;
      for (int64_t i = w_.start[c]; i < w_.start[c + 1]; ++i) sum += round_bf16(x[w_.row[i]]) * from_bf16(w_.value[i]);
      y[c] = activate<ScalarLanes>(sum + epilogue_.bias[c], epilogue_.activation);
      if (residual != nullptr) y[c] += residual[c];
    }
  }

  Csc<uint16_t> w_;
  Epilogue epilogue_;
};

}  // namespace

std::unique_ptr<Product> bf16_scalar(const Weights<uint16_t>& w, Epilogue epilogue) {
  return std::make_unique<Bf16Scalar>(w.columns(), std::move(epilogue));
}

}  // namespace sparsify
