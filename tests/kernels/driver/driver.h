// Shared by the checks of the driver: random numbers, failure reports, a pool, and layers.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "contract.h"
#include "dispatch.h"

namespace sparsify {

using Random = std::mt19937_64;

inline int64_t below(Random& random, int64_t limit) {
  return static_cast<int64_t>(random() % static_cast<uint64_t>(limit));
}

// Counts and prints what is wrong.
void report(const std::string& wrong);
int64_t reported();

// Two threads, each with half of the tasks. No kernel may lean on their order.
class TwoThreads final : public Pool {
 public:
  void parallel(int64_t count, Task task, void* argument) const override {
    std::thread other([&] {
      for (int64_t i = count - 1; i >= count / 2; --i) task(argument, static_cast<size_t>(i));
    });
    for (int64_t i = 0; i < count / 2; ++i) task(argument, static_cast<size_t>(i));
    other.join();
  }
};

// Kernels of `format` that this CPU can run.
inline std::vector<KernelInfo> runnable(Format format) {
  std::vector<KernelInfo> found;
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.format == format && can_run(kernel.isa)) found.push_back(kernel);
  }
  return found;
}

void check_products(Random& random, int layers);    // products.cc
void check_encodings(Random& random, int mutants);  // encodings.cc

}  // namespace sparsify
