#include "scratch.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace sparsify {
namespace {

constexpr int64_t kHugePage = 2 << 20;  // bytes
// Bytes that hold a huge page wherever they start: less is not worth a request, nor a mapping of its own.
constexpr int64_t kLarge = 2 * kHugePage;

}  // namespace

void prefer_huge_pages(void* memory, int64_t bytes, bool is_in_use) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr int kCollapse = 25;  // MADV_COLLAPSE, Linux 6.1; older ones refuse it
  if (bytes < kLarge) return;
  const auto start = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (start + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t last = (start + static_cast<uintptr_t>(bytes)) / kHugePage * kHugePage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  if (is_in_use) madvise(reinterpret_cast<void*>(first), last - first, kCollapse);
#else
  (void)memory, (void)bytes, (void)is_in_use;
#endif
}

void* take(int64_t bytes) {
#if defined(__linux__)
  if (bytes >= kLarge) {
    void* p = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    prefer_huge_pages(p, bytes);
    return p;
  }
#endif
  return aligned<uint8_t>(bytes).release();
}

void give_back(void* memory, int64_t bytes) {
#if defined(__linux__)
  if (bytes >= kLarge) {
    munmap(memory, static_cast<size_t>(bytes));
    return;
  }
#endif
  (void)bytes;
  std::free(memory);
}

void let_go(const void* from, int64_t bytes) {
#if defined(__linux__) && defined(MADV_PAGEOUT)
  if (from == nullptr) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = (reinterpret_cast<uintptr_t>(from) + page - 1) / page * page;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(from) + static_cast<uintptr_t>(bytes)) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_PAGEOUT);
#else
  (void)from, (void)bytes;
#endif
}

namespace {

struct Arena {
  Aligned<uint8_t> memory;
  int64_t size = 0;

  uint8_t* get(int64_t bytes) {
    if (size < bytes) {
      size = 0;
      memory.reset();
      memory = aligned<uint8_t>(bytes);
      size = bytes;
    }
    return memory.get();
  }
};

}  // namespace

uint8_t* scratch(int64_t bytes) {
  thread_local Arena arena;
  return arena.get(bytes);
}

uint8_t* outer_scratch(int64_t bytes) {
  thread_local Arena arena;
  return arena.get(bytes);
}

}  // namespace sparsify
