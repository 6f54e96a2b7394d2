#include "dispatch.h"

#include <algorithm>
#include <cstdlib>

#if defined(SPARSIFY_X86)
#include <cpuid.h>
#elif defined(SPARSIFY_ARM64) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace sparsify {
namespace {

#if defined(SPARSIFY_X86)

#if defined(SPARSIFY_EMULATE_AVX512)  // tests: made of other instructions
#define SPARSIFY_HAS_AVX512(feature) true
#else
#define SPARSIFY_HAS_AVX512(feature) (__builtin_cpu_supports(feature) != 0)
#endif

// AVX-VNNI: CPUID leaf 7, subleaf 1, EAX bit 4. Compilers before GCC 11 and Clang 12 do not know its name, nor the
// instructions: then there is no such path. It has no operating system state beyond AVX's, which avx2 covers.
bool has_avx_vnni() {
#if defined(SPARSIFY_AVX_VNNI_AS_AVX512)  // tests: the kernel is compiled to the same instruction of AVX-512
  return SPARSIFY_HAS_AVX512("avx512vnni") && SPARSIFY_HAS_AVX512("avx512vl");
#elif defined(SPARSIFY_AVX_VNNI)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;
#else
  return false;
#endif
}

std::vector<Isa> probe() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && SPARSIFY_HAS_AVX512("avx512f") && SPARSIFY_HAS_AVX512("avx512bw") &&
                      SPARSIFY_HAS_AVX512("avx512vl") && SPARSIFY_HAS_AVX512("avx512dq");
  const bool vnni = avx512 && SPARSIFY_HAS_AVX512("avx512vnni");
  std::vector<Isa> found;
  if (avx512 && SPARSIFY_HAS_AVX512("avx512bf16")) found.push_back(Isa::kAvx512Bf16);
  if (vnni && SPARSIFY_HAS_AVX512("avx512vbmi")) found.push_back(Isa::kAvx512Vbmi);
  if (vnni) found.push_back(Isa::kAvx512Vnni);
  if (avx512) found.push_back(Isa::kAvx512);
  if (avx2 && has_avx_vnni()) found.push_back(Isa::kAvx2Vnni);
  if (avx2) found.push_back(Isa::kAvx2);
  found.push_back(Isa::kScalar);
  return found;
}

#elif defined(SPARSIFY_ARM64)

// SDOT and UDOT, optional from Armv8.2 on, mandatory from Armv8.4 on: every Mac with Arm has them.
bool has_dotprod() {
#if defined(__linux__)
  constexpr unsigned long kAsimdDp = 1ul << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kAsimdDp) != 0;
#elif defined(__APPLE__)
  return true;
#else
  return false;
#endif
}

std::vector<Isa> probe() {  // Advanced SIMD itself is part of AArch64
  if (has_dotprod()) return {Isa::kNeonDotprod, Isa::kNeon, Isa::kScalar};
  return {Isa::kNeon, Isa::kScalar};
}

#else

std::vector<Isa> probe() { return {Isa::kScalar}; }

#endif

const Isa* forced_isa() {
  const char* name = std::getenv("SPARSIFY_ISA");
  if (name == nullptr) return nullptr;
  for (const Isa& isa : isas()) {
    if (std::string(name) == isa_name(isa)) return &isa;
  }
  return nullptr;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16: return "avx512_bf16";
    case Isa::kAvx512Vbmi: return "avx512_vbmi";
    case Isa::kAvx512Vnni: return "avx512_vnni";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx2Vnni: return "avx2_vnni";
    case Isa::kAvx2: return "avx2";
    case Isa::kNeonDotprod: return "neon_dotprod";
    case Isa::kNeon: return "neon";
    default: return "scalar";
  }
}

const std::vector<Isa>& isas() {
  static const std::vector<Isa> found = probe();
  return found;
}

bool can_run(Isa isa) { return std::find(isas().begin(), isas().end(), isa) != isas().end(); }

Isa chosen_isa() {
  const Isa* forced = forced_isa();
  return forced != nullptr ? *forced : isas().front();
}

bool isa_is_forced() { return forced_isa() != nullptr; }

const std::vector<KernelInfo>& kernels() {
  static const std::vector<KernelInfo> all = {
#define SPARSIFY_FP32_KERNEL(isa, factory) {#factory, Format::kFp32, Isa::isa, factory, {}, {}, {}, {}, {}},
#define SPARSIFY_INT8_KERNEL(isa, factory) {#factory, Format::kInt8, Isa::isa, {}, factory, {}, {}, {}, {}},
#define SPARSIFY_BF16_KERNEL(isa, factory) {#factory, Format::kBf16, Isa::isa, {}, {}, factory, {}, {}, {}},
#define SPARSIFY_COLUMNS_KERNEL(isa, factory) {#factory, Format::kColumns, Isa::isa, {}, {}, {}, factory, {}, {}},
#define SPARSIFY_ROWS_KERNEL(isa, format, factory) {#factory, Format::format, Isa::isa, {}, {}, {}, {}, factory, {}},
#define SPARSIFY_QUANTIZE_KERNEL(isa, function) {#function, Format::kQuantize, Isa::isa, {}, {}, {}, {}, {}, function},
#include "kernels.inc"
#undef SPARSIFY_FP32_KERNEL
#undef SPARSIFY_INT8_KERNEL
#undef SPARSIFY_COLUMNS_KERNEL
#undef SPARSIFY_BF16_KERNEL
#undef SPARSIFY_ROWS_KERNEL
#undef SPARSIFY_QUANTIZE_KERNEL
  };
  return all;
}

const KernelInfo& kernel_for(Format format) {
  const Isa limit = chosen_isa();
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.format == format && kernel.isa <= limit && can_run(kernel.isa)) return kernel;
  }
  return kernels().back();  // not reached: every format lists a scalar kernel
}

}  // namespace sparsify
