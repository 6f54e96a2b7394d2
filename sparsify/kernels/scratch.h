// Memory that kernels work in: 64-byte aligned, grown when needed, never shrunk, one arena a thread.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace sparsify {

constexpr int64_t kAlignment = 64;  // bytes: one cache line, one zmm register

constexpr int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Bytes from row to row for rows of so many, a multiple of 64: one line more where 8 rows would fall into few sets of L1
// (4096x4096, 128 rows: 1.02 to 1.07 times as fast, Zen 5).
constexpr int64_t apart(int64_t bytes) { return bytes % 2048 == 0 ? bytes + kAlignment : bytes; }

struct Free {
  void operator()(void* p) const { std::free(p); }
};

template <class T>
using Aligned = std::unique_ptr<T[], Free>;

// Asks for pages of 2 MB where the system gives them on request: random reads of 20 MB took 13 ns each with pages of
// 4 KB, and memory used for the first time came at 1.3 GB/s, with pages of 2 MB at 3.5 (Zen 3, virtual machine). A
// hint; small allocations are left alone. Memory that is in use already is moved there, where the system can do that.
void prefer_huge_pages(void* memory, int64_t bytes, bool is_in_use = false);

// Bytes of a file that are read once can leave memory again: a hint, harmless for whatever memory it is.
void let_go(const void* from, int64_t bytes);

// count elements of a trivial type, not initialised. Throws std::bad_alloc.
template <class T>
Aligned<T> aligned(int64_t count) {
  const int64_t bytes = round_up(count * static_cast<int64_t>(sizeof(T)) + 1, kAlignment);
  void* p = std::aligned_alloc(kAlignment, static_cast<size_t>(bytes));
  if (p == nullptr) throw std::bad_alloc();
  prefer_huge_pages(p, bytes);
  return Aligned<T>(static_cast<T*>(p));
}

// Memory for numbers: a large one straight from the system, so that it goes back there when it is freed. A session packs
// layer by layer; what the heap kept of that was as much as the packed weights (six layers 4096x4096 at 8:64: 1.4 times).
void* take(int64_t bytes);
void give_back(void* memory, int64_t bytes);

// A vector in such memory. Elements that resize adds are left as they are: what writes them all needs no zeros first.
template <class T>
struct Uninitialized {
  using value_type = T;
  Uninitialized() = default;
  template <class U>
  Uninitialized(const Uninitialized<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(take(static_cast<int64_t>(count * sizeof(T)))); }
  void deallocate(T* memory, size_t count) { give_back(memory, static_cast<int64_t>(count * sizeof(T))); }
  void construct(T* at) { ::new (static_cast<void*>(at)) T; }
  template <class U>
  void construct(T* at, U&& value) {
    ::new (static_cast<void*>(at)) T(std::forward<U>(value));
  }
  bool operator==(const Uninitialized&) const { return true; }
  bool operator!=(const Uninitialized&) const { return false; }
};

template <class T>
using Numbers = std::vector<T, Uninitialized<T>>;

// The calling thread's arena of at least `bytes`; its contents last until the thread asks again.
uint8_t* scratch(int64_t bytes);

// Another one, for a kernel that runs a kernel.
uint8_t* outer_scratch(int64_t bytes);

}  // namespace sparsify
