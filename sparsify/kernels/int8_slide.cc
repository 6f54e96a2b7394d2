#include "int8_slide.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace sparsify {
namespace {

constexpr uint32_t kFirst[] = {0, 0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF};  // masks of so many bytes, the first lowest

// Up to 4 non-zeros of a column, in slots.
struct Four {
  uint32_t positions, weights;  // a byte a slot

  int weight(int slot) const { return static_cast<int8_t>(weights >> 8 * slot); }
  bool fits() const { return fits_16_bits(weight(0), weight(1)) && fits_16_bits(weight(2), weight(3)); }
  void swap(int a, int b) {
    for (uint32_t* bytes : {&positions, &weights}) {
      const uint32_t differ = (*bytes >> 8 * a ^ *bytes >> 8 * b) & 0xFF;
      *bytes ^= differ << 8 * a | differ << 8 * b;
    }
  }
};

// Puts as many of the first `count` into pairs that fit as can be, the earliest in any case, and returns how many.
int pair_up(int count, Four* four) {
  for (; count > 2; --count) {
    if (four->fits()) return count;
    four->swap(1, 2);
    if (four->fits()) return count;
    four->swap(1, 3);
    if (four->fits()) return count;
    four->swap(1, 3);
    four->swap(1, 2);
    four->positions &= kFirst[count - 1];
    four->weights &= kFirst[count - 1];
  }
  if (!four->fits()) four->swap(1, 2);  // two that do not fit: one a pair
  return count;
}

// A column's place in w.
struct Cursor {
  int64_t at, end;

  int32_t row(const Csc<int8_t>& w) const { return at < end ? w.row[at] : std::numeric_limits<int32_t>::max(); }
};

// Takes what one step has slots for of the column at `cursor`, from the window [start, start + inputs).
Four take(const Csc<int8_t>& w, int64_t start, const SlidingWindow& window, Cursor* cursor) {
  const int64_t limit = start + window.inputs;
  uint8_t position[4] = {};
  uint32_t weights = 0;
  int count = 0;
  if (cursor->end - cursor->at >= 4) {  // without branches: how many it takes cannot be foreseen
    const int32_t* row = w.row.data() + cursor->at;
    for (int i = 0; i < 4; ++i) {
      position[i] = static_cast<uint8_t>(row[i] - start);
      count += row[i] < limit;
    }
    std::memcpy(&weights, w.value.data() + cursor->at, 4);
  } else {
    for (; count < cursor->end - cursor->at && w.row[cursor->at + count] < limit; ++count) {
      position[count] = static_cast<uint8_t>(w.row[cursor->at + count] - start);
      weights |= uint32_t{static_cast<uint8_t>(w.value[cursor->at + count])} << 8 * count;
    }
  }
  Four four;
  std::memcpy(&four.positions, position, 4);
  four.positions &= kFirst[count];
  four.weights = weights & kFirst[count];
  if (window.pairs_in_16_bits && !four.fits()) count = pair_up(count, &four);
  cursor->at += count;
  return four;
}

}  // namespace

bool slide(const Csc<int8_t>& w, int64_t first, int64_t last, const SlidingWindow& window, int64_t most,
           SlidingSteps* out) {
  const int64_t columns = last - first, width = 4 * window.columns;
  const int64_t last_start = round_up(w.k, 64) - window.inputs;
  std::vector<Cursor> cursors;
  int64_t fullest = 0;
  for (int64_t c = first; c < last; ++c) {
    cursors.push_back({w.start[c], w.start[c + 1]});
    fullest = std::max(fullest, w.start[c + 1] - w.start[c]);
  }
  if ((fullest + 3) / 4 >= most) return false;
  out->start.clear();
  out->bytes.resize(static_cast<size_t>(most * 2 * width));
  uint8_t* step = out->bytes.data();
  for (;; step += 2 * width) {
    int32_t earliest = std::numeric_limits<int32_t>::max();
    for (const Cursor& cursor : cursors) earliest = std::min(earliest, cursor.row(w));
    if (earliest == std::numeric_limits<int32_t>::max()) break;
    if (static_cast<int64_t>(out->start.size()) + 1 >= most) return false;
    const int64_t start = std::min(earliest / window.hop * window.hop, last_start);
    out->start.push_back(static_cast<uint32_t>(start));
    if (columns < window.columns) std::memset(step, 0, static_cast<size_t>(2 * width));
    for (int64_t c = 0; c < columns; ++c) {
      const Four four = take(w, start, window, &cursors[c]);
      std::memcpy(step + 4 * c, &four.positions, 4);
      std::memcpy(step + width + 4 * c, &four.weights, 4);
    }
  }
  out->bytes.resize(static_cast<size_t>(step - out->bytes.data()));
  return true;
}

}  // namespace sparsify
