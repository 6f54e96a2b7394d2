// The reference of the kernels of rows: one row, one product at a time, each rounded, in order of k, those by 0 as well.
// Compiled without auto-vectorisation. See rows-inl.h for the others.
#include "bf16.h"
#include "epilogue-inl.h"
#include "rows_weights.h"
#include "vector_scalar.h"

namespace sparsify {
namespace {

float number(float w) { return w; }
float number(uint16_t w) { return from_bf16(w); }
float number(int8_t w) { return static_cast<float>(w); }

template <class W>
class RowsScalar final : public Product {
 public:
  explicit RowsScalar(RowsWeights w) : w_(std::move(w)) {}

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    pool.each(rows, [&](int64_t m) {
      row(x + m * w_.k, residual == nullptr ? nullptr : residual + m * w_.n, y + m * w_.n);
    });
  }

  int64_t bytes() const override { return w_.k * w_.n * static_cast<int64_t>(sizeof(W)); }

 private:
  void row(const float* x, const float* residual, float* y) const {
    const auto* value = static_cast<const W*>(w_.value);
    float poison = 0.0f;  // 0, or NaN when the row holds a NaN or an infinity
    for (int64_t k = 0; k < w_.k; ++k) poison += x[k] * 0.0f;
    for (int64_t c = 0; c < w_.n; ++c) {
      float sum = poison;
      for (int64_t k = 0; k < w_.k; ++k) sum += x[k] * number(value[k * w_.n + c]);
      if (!w_.epilogue.scale.empty()) sum *= w_.epilogue.scale[c];
      y[c] = activate<ScalarLanes>(sum + w_.epilogue.bias[c], w_.epilogue.activation);
      if (residual != nullptr) y[c] += residual[c];
    }
  }

  RowsWeights w_;
};

}  // namespace

std::unique_ptr<Product> rows_fp32_scalar(RowsWeights w) { return std::make_unique<RowsScalar<float>>(std::move(w)); }
std::unique_ptr<Product> rows_bf16_scalar(RowsWeights w) { return std::make_unique<RowsScalar<uint16_t>>(std::move(w)); }
std::unique_ptr<Product> rows_int8_scalar(RowsWeights w) { return std::make_unique<RowsScalar<int8_t>>(std::move(w)); }

}  // namespace sparsify
