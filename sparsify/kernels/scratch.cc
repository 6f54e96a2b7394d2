#include "scratch.h"

namespace sparsify {

namespace {

struct Arena {
  Aligned<uint8_t> memory;
  int64_t size = 0;

  uint8_t* get(int64_t bytes) {
    if (size < bytes) {
      size = 0;
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
