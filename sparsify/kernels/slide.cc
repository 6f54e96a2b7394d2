#include "slide.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

namespace sparsify {
namespace {

constexpr uint32_t kFirst[] = {0, 0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF};  // masks of so many bytes, the first lowest

// What a step takes of a column: 4 slots of int8, 2 of bfloat16.
struct Slots {
  uint32_t positions, weights;

  int weight(int slot) const { return static_cast<int8_t>(weights >> 8 * slot); }
  bool fits() const { return fits_16_bits(weight(0), weight(1)) && fits_16_bits(weight(2), weight(3)); }
  void swap(int a, int b) {
    for (uint32_t* bytes : {&positions, &weights}) {
      const uint32_t differ = (*bytes >> 8 * a ^ *bytes >> 8 * b) & 0xFF;
      *bytes ^= differ << 8 * a | differ << 8 * b;
    }
  }
};

// int8: puts as many of the first `count` into pairs that fit as can be, the earliest in any case; returns how many.
int pair_up(int count, Slots* slots) {
  for (; count > 2; --count) {
    if (slots->fits()) return count;
    slots->swap(1, 2);
    if (slots->fits()) return count;
    slots->swap(1, 3);
    if (slots->fits()) return count;
    slots->swap(1, 3);
    slots->swap(1, 2);
    slots->positions &= kFirst[count - 1];
    slots->weights &= kFirst[count - 1];
  }
  if (!slots->fits()) slots->swap(1, 2);  // two that do not fit: one a pair
  return count;
}

// A column's place in w.
struct Cursor {
  int64_t at, end;

  int32_t row(const Numbers<int32_t>& rows) const { return at < end ? rows[at] : std::numeric_limits<int32_t>::max(); }
};

// Takes what one step has slots for of the column at `cursor`, from the window [start, start + inputs).
template <class T>
Slots take(const Csc<T>& w, int64_t start, const SlidingWindow& window, Cursor* cursor) {
  constexpr int kSlots = 4 / sizeof(T);
  const int64_t limit = start + window.inputs;
  std::make_unsigned_t<T> position[kSlots] = {};
  uint32_t weights = 0;
  int count = 0;
  if (cursor->end - cursor->at >= kSlots) {  // without branches: how many it takes cannot be foreseen
    const int32_t* row = w.row.data() + cursor->at;
    for (int i = 0; i < kSlots; ++i) {
      position[i] = static_cast<std::make_unsigned_t<T>>(row[i] - start);
      count += row[i] < limit;
    }
    std::memcpy(&weights, w.value.data() + cursor->at, sizeof weights);
  } else {
    for (; count < cursor->end - cursor->at && w.row[cursor->at + count] < limit; ++count) {
      position[count] = static_cast<std::make_unsigned_t<T>>(w.row[cursor->at + count] - start);
    }
    if (count > 0) std::memcpy(&weights, w.value.data() + cursor->at, static_cast<size_t>(count) * sizeof(T));
  }
  Slots slots;
  std::memcpy(&slots.positions, position, sizeof slots.positions);
  slots.positions &= kFirst[count * static_cast<int>(sizeof(T))];
  slots.weights = weights & kFirst[count * static_cast<int>(sizeof(T))];
  if constexpr (sizeof(T) == 1) {
    if (window.pairs_in_16_bits && !slots.fits()) count = pair_up(count, &slots);
  }
  cursor->at += count;
  return slots;
}

}  // namespace

template <class T>
bool slide(const Csc<T>& w, int64_t first, int64_t last, const SlidingWindow& window, int64_t most, SlidingSteps* out) {
  constexpr int64_t kSlots = 4 / sizeof(T);
  const int64_t columns = last - first, width = 4 * window.columns;
  const int64_t last_start = round_up(w.k, 64) - window.inputs;
  std::vector<Cursor> cursors;
  int64_t fullest = 0;
  for (int64_t c = first; c < last; ++c) {
    cursors.push_back({w.start[c], w.start[c + 1]});
    fullest = std::max(fullest, w.start[c + 1] - w.start[c]);
  }
  if ((fullest + kSlots - 1) / kSlots >= most) return false;
  out->start.clear();
  out->bytes.resize(static_cast<size_t>(most * 2 * width));
  uint8_t* step = out->bytes.data();
  for (;; step += 2 * width) {
    int32_t earliest = std::numeric_limits<int32_t>::max();
    for (const Cursor& cursor : cursors) earliest = std::min(earliest, cursor.row(w.row));
    if (earliest == std::numeric_limits<int32_t>::max()) break;
    if (static_cast<int64_t>(out->start.size()) + 1 >= most) return false;
    const int64_t start = std::min(earliest / window.hop * window.hop, last_start);
    out->start.push_back(static_cast<uint32_t>(start));
    if (columns < window.columns) std::memset(step, 0, static_cast<size_t>(2 * width));
    for (int64_t c = 0; c < columns; ++c) {
      const Slots slots = take(w, start, window, &cursors[c]);
      std::memcpy(step + 4 * c, &slots.positions, 4);
      std::memcpy(step + width + 4 * c, &slots.weights, 4);
    }
  }
  out->bytes.resize(static_cast<size_t>(step - out->bytes.data()));
  return true;
}

template bool slide(const Csc<int8_t>&, int64_t, int64_t, const SlidingWindow&, int64_t, SlidingSteps*);
template bool slide(const Csc<uint16_t>&, int64_t, int64_t, const SlidingWindow&, int64_t, SlidingSteps*);

}  // namespace sparsify
