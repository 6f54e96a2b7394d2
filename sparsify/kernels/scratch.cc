#include "scratch.h"

namespace sparsify {

uint8_t* scratch(int64_t bytes) {
  thread_local Aligned<uint8_t> arena;
  thread_local int64_t size = 0;
  if (size < bytes) {
    size = 0;
    arena = aligned<uint8_t>(bytes);
    size = bytes;
  }
  return arena.get();
}

}  // namespace sparsify
