#include "int8_stream.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace sparsify {
namespace {

bool fits_16_bits(int a, int b) {
  return std::max(a, 0) + std::max(b, 0) <= 128 && std::min(a, 0) + std::min(b, 0) >= -128;
}

// The non-zeros of one column in one block, in the order in which permute steps take them; fillers are 0.
struct Slots {
  int count = 0;
  uint8_t position[128];
  int8_t weight[128];

  void add(int64_t at, int8_t value) {
    position[count] = static_cast<uint8_t>(at);
    weight[count++] = value;
  }
};

// Pairs a column's largest weight with its smallest and so on inwards: opposite signs always fit 16 bits, and among
// weights of one sign this makes the largest sum as small as it can be. One that still does not fit stands alone.
void add_in_pairs(const Csc<int8_t>& w, int64_t first, int64_t last, int64_t block, Slots* out) {
  int64_t order[64];
  int64_t n = 0;
  for (int64_t i = first; i < last; ++i) {
    int64_t at = n++;
    for (; at > 0 && w.value[order[at - 1]] > w.value[i]; --at) order[at] = order[at - 1];
    order[at] = i;
  }
  const auto add = [&](int64_t i) { out->add(w.row[i] & (block - 1), w.value[i]); };
  int64_t low = 0, high = n - 1;
  while (low < high) {
    const int smallest = w.value[order[low]], largest = w.value[order[high]];
    if (fits_16_bits(smallest, largest)) {
      add(order[low++]);
      add(order[high--]);
    } else {  // both of one sign: the one of larger magnitude stands alone
      add(order[smallest > 0 ? high-- : low++]);
      out->add(0, 0);
    }
  }
  if (low == high) add(order[low]);
}

// Any two weights within +-64 make a pair that fits.
bool all_small(const Csc<int8_t>& w, int64_t first, int64_t last) {
  int largest = 0;
  for (int64_t i = first; i < last; ++i) largest = std::max(largest, std::abs(static_cast<int>(w.value[i])));
  return largest <= 64;
}

void fill_slots(const Csc<int8_t>& w, int64_t first, int64_t last, const Int8Layout& layout, Slots* out) {
  out->count = 0;
  if (layout.pairs_in_16_bits && !all_small(w, first, last)) return add_in_pairs(w, first, last, layout.block, out);
  for (int64_t i = first; i < last; ++i) out->add(w.row[i] & (layout.block - 1), w.value[i]);
}

// Bit i: the inputs 4i to 4i + 3 of this block hold a pair that does not fit 16 bits.
uint8_t unfit_quads(const Csc<int8_t>& w, int64_t first, int64_t last) {
  unsigned unfit = 0;
  for (int64_t i = first + 1; i < last; ++i) {
    const bool pair = w.row[i] % 2 == 1 && w.row[i - 1] == w.row[i] - 1;
    if (pair && !fits_16_bits(w.value[i - 1], w.value[i])) unfit |= 1u << (w.row[i] % 16 / 4);
  }
  return static_cast<uint8_t>(unfit);
}

// Calls visit(column, index of its group and block in `code`, first non-zero, one past the last) for every column and
// block that has any.
template <class Visit>
void each_block(const Csc<int8_t>& w, const Int8Stream& stream, Visit visit) {
  const int shift = __builtin_ctzll(static_cast<unsigned long long>(stream.layout.block));
  for (int64_t c = 0; c < w.n; ++c) {
    const int64_t group = c / stream.layout.columns * stream.blocks;
    int64_t i = w.start[c];
    while (i < w.start[c + 1]) {
      const int64_t block = w.row[i] >> shift, first = i, end = (block + 1) << shift;
      while (i < w.start[c + 1] && w.row[i] < end) ++i;
      visit(c, group + block, first, i);
    }
  }
}

void choose_codes(const Csc<int8_t>& w, Int8Stream* out) {
  const Int8Layout& layout = out->layout;
  std::vector<uint8_t> twice(static_cast<size_t>(out->groups * out->blocks));
  const auto raise = [&](int64_t at, int64_t slots) {
    out->code[at] = static_cast<uint8_t>(std::max<int64_t>(out->code[at], (slots + 3) / 4));
  };
  // Plain, where the permute steps counted so far cost as much; what is plain stays so: kPlain is a large number.
  const auto settle = [&] {
    for (size_t at = 0; at < twice.size(); ++at) {
      const auto plain_steps = static_cast<int>(layout.block / 4) + __builtin_popcount(twice[at]);
      const bool plain = out->code[at] * layout.permute_cost >= plain_steps * layout.plain_cost;
      if (plain) out->code[at] = Int8Stream::kPlain | twice[at];
    }
  };
  out->code.assign(static_cast<size_t>(out->groups * out->blocks), 0);
  each_block(w, *out, [&](int64_t, int64_t at, int64_t first, int64_t last) {
    raise(at, last - first);
    if (layout.pairs_in_16_bits) twice[at] |= unfit_quads(w, first, last);
  });
  settle();
  if (!layout.pairs_in_16_bits) return;
  // Slots that stay empty beside a weight that fits no other: only blocks still in question need them counted.
  Slots slots;
  each_block(w, *out, [&](int64_t, int64_t at, int64_t first, int64_t last) {
    if ((out->code[at] & Int8Stream::kPlain) != 0 || all_small(w, first, last)) return;
    fill_slots(w, first, last, layout, &slots);
    raise(at, slots.count);
  });
  settle();
}

// [groups * blocks + 1]: where each block starts in `bytes`.
std::vector<int64_t> block_offsets(const Int8Stream& stream) {
  const Int8Layout& layout = stream.layout;
  std::vector<int64_t> offset(stream.code.size() + 1, 0);
  for (size_t at = 0; at < stream.code.size(); ++at) {
    const uint8_t code = stream.code[at];
    const bool plain = (code & Int8Stream::kPlain) != 0;
    const int64_t registers = plain ? layout.block / 4 + __builtin_popcount(code & 15u) : 2 * code;
    offset[at + 1] = offset[at] + registers * 4 * layout.columns;
  }
  return offset;
}

void write_plain(const Csc<int8_t>& w, int64_t first, int64_t last, int64_t block, uint8_t twice, int64_t width,
                 uint8_t* lane) {
  for (int64_t i = first; i < last; ++i) {
    const auto position = static_cast<unsigned>(w.row[i] & (block - 1)), quad = position / 4;
    uint8_t* byte = lane + (quad + __builtin_popcount(twice & ((1u << quad) - 1))) * width + position % 4;
    const bool split = quad < 4 && (twice >> quad & 1) != 0;
    const int half = split ? w.value[i] / 2 : 0;
    *byte = static_cast<uint8_t>(w.value[i] - half);
    if (split) byte[width] = static_cast<uint8_t>(half);
  }
}

void write_permuted(const Slots& slots, int64_t width, uint8_t* lane) {
  for (int i = 0; i < slots.count; ++i) {
    uint8_t* byte = lane + i / 4 * 2 * width + i % 4;
    byte[0] = slots.position[i];
    byte[width] = static_cast<uint8_t>(slots.weight[i]);
  }
}

template <class T>
Aligned<T> padded(const std::vector<T>& values, int64_t size) {
  auto out = aligned<T>(size);
  std::fill(out.get(), out.get() + size, T(0));
  std::copy(values.begin(), values.end(), out.get());
  return out;
}

std::vector<int32_t> column_sums(const Csc<int8_t>& w) {
  std::vector<int32_t> sums(static_cast<size_t>(w.n));
  for (int64_t c = 0; c < w.n; ++c) {
    for (int64_t i = w.start[c]; i < w.start[c + 1]; ++i) sums[c] += w.value[i];
  }
  return sums;
}

}  // namespace

Int8Stream pack_int8(const Csc<int8_t>& w, const Epilogue& epilogue, const Int8Layout& layout) {
  Int8Stream out;
  out.layout = layout;
  out.k = w.k;
  out.n = w.n;
  out.blocks = (w.k + layout.block - 1) / layout.block;
  out.groups = (w.n + layout.columns - 1) / layout.columns;
  out.scale = padded(epilogue.scale, out.groups * layout.columns);
  out.bias = padded(epilogue.bias, out.groups * layout.columns);
  out.column_sum = padded(column_sums(w), out.groups * layout.columns);
  choose_codes(w, &out);

  const std::vector<int64_t> offset = block_offsets(out);
  for (int64_t group = 0; group <= out.groups; ++group) out.offset.push_back(offset[group * out.blocks]);
  out.bytes = aligned<uint8_t>(out.offset.back());
  std::memset(out.bytes.get(), 0, static_cast<size_t>(out.offset.back()));
  const int64_t width = 4 * layout.columns;
  Slots slots;
  each_block(w, out, [&](int64_t c, int64_t at, int64_t first, int64_t last) {
    uint8_t* lane = out.bytes.get() + offset[at] + c % layout.columns * 4;
    const uint8_t code = out.code[at];
    if ((code & Int8Stream::kPlain) != 0) {
      write_plain(w, first, last, layout.block, code & 15, width, lane);
    } else {
      fill_slots(w, first, last, layout, &slots);
      write_permuted(slots, width, lane);
    }
  });
  return out;
}

}  // namespace sparsify
