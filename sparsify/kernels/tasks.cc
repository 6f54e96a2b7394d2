// What tasks are made of, compiled once for any CPU.
#include <algorithm>
#include <thread>

#include "tasks.h"

namespace sparsify {

int64_t cores() {
  static const int64_t count = std::max<int64_t>(1, std::thread::hardware_concurrency());
  return count;
}

int64_t pieces_of_task(int64_t bytes, int64_t pieces, int64_t rows) {
  constexpr int64_t kMost = 128 << 10, kTasks = 24;
  const int64_t least = std::clamp<int64_t>((2 << 20) / std::max<int64_t>(rows, 1), 16 << 10, 64 << 10);
  const int64_t wanted = std::clamp(bytes / kTasks, least, kMost);
  return std::clamp<int64_t>(wanted * pieces / std::max<int64_t>(bytes, 1), 1, pieces);
}

int64_t rows_of_task(int64_t k) { return std::max<int64_t>(4, (32 << 10) / k / 4 * 4); }

}  // namespace sparsify
