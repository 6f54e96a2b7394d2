// Permute steps with windows that slide, for weights of int8 and bfloat16.
//
// A permute picks from a window of consecutive inputs. With windows in fixed blocks, a step waits for the fullest column
// of each block; here a window starts at the earliest input that any column still has to multiply, and every column
// takes its next non-zeros inside, 4 of int8 or 2 of bfloat16, so that columns fall behind and catch up along K. Steps
// for unstructured weights of int8, over those that hold 4 non-zeros of every column each:
//
//   zeros, K 768                 50 %   70 %   80 %   90 %
//   32 columns, blocks of 64     1.30   1.48   1.68   2.05
//   32 columns, windows of 64    1.08   1.15   1.23   1.47
//   8 columns, blocks of 16      1.53   1.85   2.30   2.83
//   8 columns, windows of 16     1.12   1.32   1.58   2.48
//
// Starting a window as early as possible and taking as much as fits is best: what is not taken may only be taken later.
#pragma once

#include <cstdint>
#include <vector>

#include "contract.h"

namespace sparsify {

struct SlidingWindow {
  int64_t columns;  // that a step serves
  int64_t inputs;   // of a window, at most 64
  int64_t hop;      // starts are multiples of it; the last window ends at K rounded up to 64
  // The products of slots 2j and 2j + 1 are summed in 16 bits; see Int8Layout. int8 only.
  bool pairs_in_16_bits = false;
};

struct SlidingSteps {
  std::vector<uint32_t> start;  // [steps] first input of a step's window
  // [steps, 2, columns] times 4 bytes: positions in the window, as wide as weights, and weights; 0 in empty slots
  Numbers<uint8_t> bytes;
};

// Whether `a` 255 + `b` 255 is a number of 16 bits for any weights: opposite signs always are.
inline bool fits_16_bits(int a, int b) { return a + b >= -128 && a + b <= 128; }

// The hop, in inputs, of windows as wide as a cache line, for the columns [first, last) of w. A window that crosses lines
// takes a tenth longer, one that starts earlier than it need not finds less to take: of 8, 16 and 32 bytes the fastest for
// 90 and 95 %, 80 and 75 %, and 70 and 50 % zeros, by 1 to 4 % (768x3072, Zen 5).
template <class T>
int64_t hop_of_lines(const Csc<T>& w, int64_t first, int64_t last) {
  const double density = static_cast<double>(w.start[last] - w.start[first]) / static_cast<double>(w.k * (last - first));
  return static_cast<int64_t>((density < 0.15 ? 8 : density < 0.28 ? 16 : 32) / sizeof(T));
}

// Deals the columns [first, last) of w out to less than `most` steps; false if that many do not do.
template <class T>
bool slide(const Csc<T>& w, int64_t first, int64_t last, const SlidingWindow& window, int64_t most, SlidingSteps* out);

}  // namespace sparsify
