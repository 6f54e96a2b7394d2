#include "dispatch.h"

#include <cstdlib>

namespace sparsify {
namespace {

constexpr Isa kIsas[] = {Isa::kAvx512Vbmi, Isa::kAvx512, Isa::kScalar};

Isa probe() {
#if defined(SPARSIFY_X86)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni")) return Isa::kAvx512Vbmi;
  if (avx512) return Isa::kAvx512;
#endif
  return Isa::kScalar;
}

bool named_in_environment(Isa isa) {
  const char* forced = std::getenv("SPARSIFY_ISA");
  return forced != nullptr && std::string(forced) == isa_name(isa) && isa <= best_isa();
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Vbmi: return "avx512_vbmi";
    case Isa::kAvx512: return "avx512";
    default: return "scalar";
  }
}

Isa best_isa() {
  static const Isa best = probe();
  return best;
}

Isa chosen_isa() {
  for (const Isa isa : kIsas) {
    if (named_in_environment(isa)) return isa;
  }
  return best_isa();
}

bool isa_is_forced() {
  for (const Isa isa : kIsas) {
    if (named_in_environment(isa)) return true;
  }
  return false;
}

const std::vector<KernelInfo>& kernels() {
  static const std::vector<KernelInfo> all = {
#define SPARSIFY_FP32_KERNEL(isa, factory) {#factory, Format::kFp32, Isa::isa, factory, nullptr},
#define SPARSIFY_INT8_KERNEL(isa, factory) {#factory, Format::kInt8, Isa::isa, nullptr, factory},
#define SPARSIFY_COLUMNS_KERNEL(isa, factory) {#factory, Format::kColumns, Isa::isa, factory, nullptr},
#include "kernels.inc"
#undef SPARSIFY_FP32_KERNEL
#undef SPARSIFY_INT8_KERNEL
#undef SPARSIFY_COLUMNS_KERNEL
  };
  return all;
}

const KernelInfo& kernel_for(Format format) {
  const Isa limit = chosen_isa();
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.format == format && kernel.isa <= limit) return kernel;
  }
  return kernels().back();  // not reached: every format lists a scalar kernel
}

}  // namespace sparsify
