// bf16 W on CPUs without bf16 instructions: X is rounded once, and the fp32 kernel of the same ISA multiplies it by W
// made float32. Products of two bfloat16 are exact there, so that an FMA rounds its sum only.
#include <algorithm>

#include "bf16.h"
#include "contract.h"
#include "weights.h"

namespace sparsify {
namespace {

constexpr int64_t kTask = 16 << 10;  // numbers: some 10 us

class Bf16ByFp32 final : public Product {
 public:
  Bf16ByFp32(const Csc<uint16_t>& w, Epilogue epilogue, Fp32Factory make) : k_(w.k) {
    Csc<float> wide{w.k, w.n, w.start, w.row, {}};
    wide.value.reserve(w.value.size());
    for (const uint16_t bits : w.value) wide.value.push_back(from_bf16(bits));
    product_ = make(Weights<float>(std::move(wide)), std::move(epilogue));
  }

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    const int64_t size = rows * k_;
    auto* rounded = reinterpret_cast<float*>(outer_scratch(size * static_cast<int64_t>(sizeof(float))));
    pool.each((size + kTask - 1) / kTask, [&](int64_t task) {
      for (int64_t i = task * kTask; i < std::min((task + 1) * kTask, size); ++i) rounded[i] = round_bf16(x[i]);
    });
    product_->run(rounded, rows, residual, y, pool);
  }

  int64_t bytes() const override { return product_->bytes(); }

 private:
  int64_t k_;
  std::unique_ptr<Product> product_;
};

}  // namespace

#define SPARSIFY_BF16_BY_FP32(name, fp32)                                              \
  std::unique_ptr<Product> name(const Weights<uint16_t>& w, Epilogue epilogue) {       \
    return std::make_unique<Bf16ByFp32>(w.columns(), std::move(epilogue), fp32);       \
  }
#if defined(SPARSIFY_X86)
SPARSIFY_BF16_BY_FP32(bf16_by_fp32_avx512, fp32_panel_avx512)
SPARSIFY_BF16_BY_FP32(bf16_by_fp32_avx2, fp32_panel_avx2)
#elif defined(SPARSIFY_ARM64)
SPARSIFY_BF16_BY_FP32(bf16_by_fp32_neon, fp32_panel_neon)
#endif

}  // namespace sparsify
