#include "scratch.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace sparsify {

void prefer_huge_pages(void* memory, int64_t bytes, bool is_in_use) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr int kCollapse = 25;  // MADV_COLLAPSE, Linux 6.1; older ones refuse it
  constexpr int64_t kHuge = 1 << 21;  // bytes
  if (bytes < 2 * kHuge) return;
  const auto start = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (start + kHuge - 1) / kHuge * kHuge, last = (start + static_cast<uintptr_t>(bytes)) / kHuge * kHuge;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  if (is_in_use) madvise(reinterpret_cast<void*>(first), last - first, kCollapse);
#else
  (void)memory, (void)bytes, (void)is_in_use;
#endif
}

namespace {

constexpr int64_t kMapped = 4 << 20;  // bytes from which on memory is mapped: as many as get pages of 2 MB

}  // namespace

void* take(int64_t bytes) {
#if defined(__linux__)
  if (bytes >= kMapped) {
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
  if (bytes >= kMapped) {
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
