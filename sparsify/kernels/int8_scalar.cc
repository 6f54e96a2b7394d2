// The reference of every int8 kernel: one row, one column, one product at a time. Compiled without auto-vectorisation.
#include <algorithm>
#include <cmath>

#include "contract.h"
#include "epilogue-inl.h"
#include "quantize.h"
#include "vector_scalar.h"
#include "weights.h"

namespace sparsify {
namespace {

RowRange range_of(const float* x, int64_t k) {
  RowRange range{0.0f, 0.0f, 0.0f};
  for (int64_t i = 0; i < k; ++i) {
    range.low = std::min(range.low, x[i]);
    range.high = std::max(range.high, x[i]);
    range.poison += x[i] * 0.0f;
  }
  return range;
}

void fill(const float* x, int64_t k, const RowScale& row, uint8_t* q) {
  for (int64_t i = 0; i < k; ++i) {
    const float shifted = std::nearbyint(x[i] * row.inverse) + static_cast<float>(row.zero_point);
    q[i] = shifted > 0.0f ? static_cast<uint8_t>(std::min(shifted, 255.0f)) : 0;  // NaN: 0
  }
}

class Int8Scalar final : public Product {
 public:
  Int8Scalar(const Csc<int8_t>& w, Epilogue epilogue) : w_(w), epilogue_(std::move(epilogue)) {
    for (int64_t c = 0; c < w_.n; ++c) {
      int32_t sum = 0;
      for (int64_t i = w_.start[c]; i < w_.start[c + 1]; ++i) sum += w_.value[i];
      column_sum_.push_back(sum);
    }
  }

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    QuantizedRows quantized(rows, w_.k);
    pool.each(rows, [&](int64_t m) {
      const RowScale row = row_scale(range_of(x + m * w_.k, w_.k));
      fill(x + m * w_.k, w_.k, row, quantized.q + m * quantized.stride);
      const float* added = residual == nullptr ? nullptr : residual + m * w_.n;
      multiply(quantized.q + m * quantized.stride, row, added, y + m * w_.n);
    });
  }

  int64_t bytes() const override { return w_.nnz() * 5; }

 private:
  void multiply(const uint8_t* q, const RowScale& row, const float* residual, float* y) const {
    for (int64_t c = 0; c < w_.n; ++c) {
      int32_t sum = 0;
      for (int64_t i = w_.start[c]; i < w_.start[c + 1]; ++i) sum += q[w_.row[i]] * w_.value[i];
      const auto total = static_cast<float>(sum - row.zero_point * column_sum_[c]);
      y[c] = activate<ScalarLanes>(total * row.scale * epilogue_.scale[c] + epilogue_.bias[c], epilogue_.activation);
      if (residual != nullptr) y[c] += residual[c];
    }
  }

  Csc<int8_t> w_;
  Epilogue epilogue_;
  std::vector<int32_t> column_sum_;  // [N]
};

}  // namespace

std::unique_ptr<Product> int8_scalar(const Weights<int8_t>& w, Epilogue epilogue) {
  return std::make_unique<Int8Scalar>(w.columns(), std::move(epilogue));
}

}  // namespace sparsify
