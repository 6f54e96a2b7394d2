// The reference of every int8 kernel: one row, one column, one product at a time. Compiled without auto-vectorisation.
#include "contract.h"
#include "epilogue-inl.h"
#include "quantize_scalar.h"
#include "vector_scalar.h"
#include "weights.h"

namespace sparsify {
namespace {

class Int8Scalar final : public Int8Product {
 public:
  Int8Scalar(const Csc<int8_t>& w, Epilogue epilogue) : w_(w), epilogue_(std::move(epilogue)) {
    for (int64_t c = 0; c < w_.n; ++c) {
      int32_t sum = 0;
      for (int64_t i = w_.start[c]; i < w_.start[c + 1]; ++i) sum += w_.value[i];
      column_sum_.push_back(sum);
    }
  }

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    const QuantizedRoom room(rows, w_.k);
    pool.each(rows, [&](int64_t m) {
      const RowScale row = row_scale(range_of(x + m * w_.k, w_.k));
      uint8_t* q = room.q + m * room.stride;
      fill(x + m * w_.k, w_.k, row, q);
      multiply(q, row.zero_point, row.scale, m, residual, y);
    });
  }

  void run(const Quantized& x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    pool.each(rows, [&](int64_t m) { multiply(x.q + m * w_.k, x.zero_point[m], x.scale[m], m, residual, y); });
  }

  int64_t bytes() const override { return w_.nnz() * 5; }

 private:
  // Row m of y from row m of q.
  void multiply(const uint8_t* q, int32_t zero_point, float scale, int64_t m, const float* residual, float* y) const {
    for (int64_t c = 0; c < w_.n; ++c) {
      int32_t sum = 0;
      for (int64_t i = w_.start[c]; i < w_.start[c + 1]; ++i) sum += q[w_.row[i]] * w_.value[i];
      const auto total = static_cast<float>(sum - zero_point * column_sum_[c]);
      const float v = activate<ScalarLanes>(total * scale * epilogue_.scale[c] + epilogue_.bias[c], epilogue_.activation);
      y[m * w_.n + c] = residual == nullptr ? v : v + residual[m * w_.n + c];
    }
  }

  Csc<int8_t> w_;
  Epilogue epilogue_;
  std::vector<int32_t> column_sum_;  // [N]
};

}  // namespace

std::unique_ptr<Int8Product> int8_scalar(const Weights<int8_t>& w, Epilogue epilogue) {
  return std::make_unique<Int8Scalar>(w.columns(), std::move(epilogue));
}

}  // namespace sparsify
