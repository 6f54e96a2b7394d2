// Checks every kernel that this CPU can run. Usage: driver [the ISA path that must be the fastest here, or '' [layers]]
#include "driver.h"

#include <cstdio>
#include <cstdlib>

namespace sparsify {
namespace {
int64_t g_reported = 0;
}

void report(const std::string& wrong) {
  if (++g_reported <= 20) std::printf("WRONG: %s\n", wrong.c_str());
}

int64_t reported() { return g_reported; }

}  // namespace sparsify

int main(int argc, char** argv) {
  using namespace sparsify;
  if (argc > 1 && argv[1][0] != 0 && isa_name(isas().front()) != std::string(argv[1])) {
    report(std::string("the fastest path is ") + isa_name(isas().front()) + ", expected " + argv[1]);
  }
  for (const KernelInfo& kernel : kernels()) {
    const char* fate = can_run(kernel.isa) ? "checked" : "cannot run";
    std::printf("%s (%s): %s\n", kernel.name.c_str(), isa_name(kernel.isa), fate);
  }
  const int layers = argc > 2 ? std::atoi(argv[2]) : 150;
  Random random(1);
  check_products(random, layers);
  check_encodings(random, 20 * layers);
  std::printf("%lld wrong\n", static_cast<long long>(reported()));
  return reported() == 0 ? 0 : 1;
}
