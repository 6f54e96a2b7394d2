#include "contract.h"

#include <thread>

namespace sparsify {

int64_t cores() {
  static const int64_t count = std::max<int64_t>(1, std::thread::hardware_concurrency());
  return count;
}

}  // namespace sparsify
