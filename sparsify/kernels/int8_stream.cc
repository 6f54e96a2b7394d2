#include "int8_stream.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "plain_steps.h"
#include "slide.h"

namespace sparsify {
namespace {

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

// Bit 4p + i: of the inputs 4i to 4i + 3 of this block, pairing p makes a pair that does not fit 16 bits.
unsigned unfit_quads(const Csc<int8_t>& w, int64_t first, int64_t last) {
  unsigned unfit = 0;
  for (int64_t i = first + 1; i < last; ++i) {
    for (int64_t j = i - 1; j >= first && w.row[j] / 4 == w.row[i] / 4; --j) {
      const int pairing = (w.row[i] ^ w.row[j]) % 4 - 1;  // 1 pairs 0 with 1 and 2 with 3, and so on
      if (!fits_16_bits(w.value[j], w.value[i])) unfit |= 1u << (4 * pairing + w.row[i] % 16 / 4);
    }
  }
  return unfit;
}

int ones(unsigned bits) {
  static constexpr uint8_t kOnes[] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
  return kOnes[bits & 15];
}

// One group of columns of w, served by steps block by block.
class BlockSteps {
 public:
  BlockSteps(const Csc<int8_t>& w, const Int8Layout& layout, int64_t group, uint8_t* code)
      : w_(w),
        layout_(layout),
        blocks_((w.k + layout.block - 1) / layout.block),
        shift_(__builtin_ctzll(static_cast<unsigned long long>(layout.block))),
        first_(group * layout.columns),
        last_(std::min(first_ + layout.columns, w.n)),
        code_(code) {}

  // Permute steps of every block to `code`, as if every pair fitted; returns what the group costs at least.
  int64_t count() {
    std::vector<uint8_t> here(static_cast<size_t>(blocks_)), fullest(here);
    for (int64_t c = first_; c < last_; ++c) {
      std::fill(here.begin(), here.end(), uint8_t{0});
      for (int64_t i = w_.start[c]; i < w_.start[c + 1]; ++i) ++here[w_.row[i] >> shift_];
      for (int64_t b = 0; b < blocks_; ++b) fullest[b] = std::max(fullest[b], here[b]);
    }
    int64_t cost = 0;
    for (int64_t b = 0; b < blocks_; ++b) {
      code_[b] = static_cast<uint8_t>((fullest[b] + 3) / 4);
      cost += std::min<int64_t>(code_[b] * layout_.permute_cost, layout_.block / 4 * layout_.plain_cost);
    }
    return cost;
  }

  // Settles every code. Where a pair of inputs does not fit, a plain step is two; and a weight that fits no other leaves
  // a slot of a permute step empty, which need be counted only for blocks still in question.
  void choose() {
    unfit_.assign(static_cast<size_t>(blocks_), 0);
    if (layout_.pairs_in_16_bits) {
      each_block([&](int64_t, int64_t b, int64_t first, int64_t last) {
        unfit_[b] |= static_cast<uint16_t>(unfit_quads(w_, first, last));
      });
    }
    settle();
    if (!layout_.pairs_in_16_bits) return;
    Slots slots;
    each_block([&](int64_t, int64_t b, int64_t first, int64_t last) {
      if (plain(b) || all_small(w_, first, last)) return;
      fill_slots(w_, first, last, layout_, &slots);
      code_[b] = static_cast<uint8_t>(std::max((slots.count + 3) / 4, static_cast<int>(code_[b])));
    });
    settle();
  }

  int64_t size() const {
    int64_t registers = 0;
    for (int64_t b = 0; b < blocks_; ++b) registers += registers_of(b) + extras_of(b);
    return registers * 4 * layout_.columns;
  }

  // Writes size() bytes.
  void write(uint8_t* bytes) const {
    if (size() == 0) return;
    std::memset(bytes, 0, static_cast<size_t>(size()));
    const int64_t width = 4 * layout_.columns;
    std::vector<uint8_t*> start, extra;
    for (int64_t b = 0; b < blocks_; bytes += registers_of(b++) * width) start.push_back(bytes);
    for (int64_t b = 0; b < blocks_; bytes += extras_of(b++) * width) extra.push_back(bytes);
    Slots slots;
    each_block([&](int64_t c, int64_t b, int64_t first, int64_t last) {
      const int64_t at = (c - first_) * 4;
      if (plain(b)) return write_plain(b, first, last, start[b] + at, extra[b] + at);
      fill_slots(w_, first, last, layout_, &slots);
      for (int i = 0; i < slots.count; ++i) {
        uint8_t* byte = start[b] + at + i / 4 * 2 * width + i % 4;
        byte[0] = slots.position[i];
        byte[width] = static_cast<uint8_t>(slots.weight[i]);
      }
    });
  }

  // Appends the starts of plain and extra steps; `width` is K rounded up to 64.
  void write_starts(int64_t width, std::vector<uint32_t>* starts) const {
    for (const bool extra : {false, true}) {
      for (int64_t b = 0; b < blocks_; ++b) {
        for (unsigned quad = 0; plain(b) && quad < 4; ++quad) {
          if (extra && (code_[b] >> quad & 1) == 0) continue;
          starts->push_back(static_cast<uint32_t>(pairing(b, quad) * width + (b << shift_) + 4 * quad));
        }
      }
    }
  }

 private:
  // Calls visit(column, block, first non-zero, one past the last) for every column and block that has any.
  template <class Visit>
  void each_block(Visit visit) const {
    for (int64_t c = first_; c < last_; ++c) {
      int64_t i = w_.start[c];
      while (i < w_.start[c + 1]) {
        const int64_t block = w_.row[i] >> shift_, first = i, end = (block + 1) << shift_;
        while (i < w_.start[c + 1] && w_.row[i] < end) ++i;
        visit(c, block, first, i);
      }
    }
  }

  bool plain(int64_t b) const { return (code_[b] & Int8Stream::kPlain) != 0; }

  int64_t registers_of(int64_t b) const { return plain(b) ? layout_.block / 4 : 2 * code_[b]; }

  int64_t extras_of(int64_t b) const { return plain(b) ? ones(code_[b]) : 0; }

  // The first pairing that fits; 0 where none does, or need.
  int pairing(int64_t b, unsigned quad) const {
    for (int p = 0; p < Int8Stream::kPairings; ++p) {
      if ((unfit_[b] >> (4 * p + quad) & 1) == 0) return p;
    }
    return 0;
  }

  // Plain, where the permute steps counted so far cost as much; what is plain stays so: kPlain is a large number.
  void settle() {
    for (int64_t b = 0; b < blocks_; ++b) {
      const unsigned twice = unfit_[b] & unfit_[b] >> 4 & unfit_[b] >> 8 & 15u;  // no pairing fits
      const int64_t plain_steps = layout_.block / 4 + ones(twice);
      const bool plain = code_[b] * layout_.permute_cost >= plain_steps * layout_.plain_cost;
      if (plain) code_[b] = static_cast<uint8_t>(Int8Stream::kPlain | twice);
    }
  }

  void write_plain(int64_t b, int64_t first, int64_t last, uint8_t* lane, uint8_t* extra) const {
    const int64_t width = 4 * layout_.columns;
    for (int64_t i = first; i < last; ++i) {
      const auto position = static_cast<unsigned>(w_.row[i] & (layout_.block - 1)), quad = position / 4;
      const bool in_16_bits = layout_.pairs_in_16_bits;
      const uint8_t place = Int8Stream::kPlace[in_16_bits ? pairing(b, quad) : 0][position % 4];
      const bool split = in_16_bits && (code_[b] >> quad & 1) != 0;
      const int half = split ? w_.value[i] / 2 : 0;
      lane[quad * width + place] = static_cast<uint8_t>(w_.value[i] - half);
      if (split) extra[ones(code_[b] & ((1u << quad) - 1)) * width + place] = static_cast<uint8_t>(half);
    }
  }

  const Csc<int8_t>& w_;
  const Int8Layout& layout_;
  int64_t blocks_;
  int shift_;
  int64_t first_, last_;  // columns
  uint8_t* code_;         // [blocks]
  std::vector<uint16_t> unfit_;  // [blocks], see unfit_quads
};

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

// Every group by sliding steps, or block by block where those cost less: where dense and empty blocks take turns.
void pack_groups(const Csc<int8_t>& w, Int8Stream* out) {
  const Int8Layout& layout = out->layout;
  out->code.assign(static_cast<size_t>(out->groups * out->blocks), 0);
  out->offset.push_back(0);
  out->first_window.push_back(0);
  out->first_plain.push_back(0);
  SlidingSteps steps;
  for (int64_t group = 0; group < out->groups; ++group) {
    uint8_t* code = out->code.data() + group * out->blocks;
    BlockSteps blocks(w, layout, group, code);
    const int64_t first = group * layout.columns, last = std::min(first + layout.columns, w.n);
    const int64_t cost = blocks.count(), at = out->offset.back();
    const int64_t hop = layout.hop != 0 ? layout.hop : hop_of_lines(w, first, last);
    const SlidingWindow window{layout.columns, layout.block, hop, layout.pairs_in_16_bits};
    if (slide(w, first, last, window, cost / layout.permute_cost, &steps)) {
      std::fill(code, code + out->blocks, uint8_t{0});
      out->bytes.insert(out->bytes.end(), steps.bytes.begin(), steps.bytes.end());
      out->window.insert(out->window.end(), steps.start.begin(), steps.start.end());
    } else {
      blocks.choose();
      out->bytes.resize(static_cast<size_t>(at + blocks.size()));
      blocks.write(out->bytes.data() + at);
      if (layout.pairs_in_16_bits) blocks.write_starts(round_up(out->k, 64), &out->plain);
    }
    out->offset.push_back(static_cast<int64_t>(out->bytes.size()));
    out->first_window.push_back(static_cast<int64_t>(out->window.size()));
    out->first_plain.push_back(static_cast<int64_t>(out->plain.size()));
    // Groups are much alike: with room for one and a half times the first, the rest seldom moves.
    if (group == 0) out->bytes.reserve(static_cast<size_t>(out->offset.back() * out->groups * 3 / 2));
  }
}

// Plain steps throughout, if that is what all groups come to. Where pairs must fit 16 bits, each group chooses them.
bool pack_dense(const Encoded& in, Int8Stream* out) {
  const Int8Layout& layout = out->layout;
  if (layout.pairs_in_16_bits) return false;
  const int64_t block_cost = layout.block / 4 * layout.plain_cost;
  const PlainLayout plain{layout.columns, layout.block, block_cost, layout.permute_cost, layout.permute_cost};
  out->column_sum = aligned<int32_t>(out->groups * layout.columns);
  if (!pack_plain(in, plain, &out->bytes, out->column_sum.get())) return false;
  out->code.assign(static_cast<size_t>(out->groups * out->blocks), Int8Stream::kPlain);
  for (int64_t group = 0; group <= out->groups; ++group) {
    out->offset.push_back(group * out->blocks * layout.block * layout.columns);
  }
  out->first_window.assign(static_cast<size_t>(out->groups) + 1, 0);
  out->first_plain = out->first_window;
  return true;
}

}  // namespace

Int8Stream pack_int8(const Weights<int8_t>& w, const Epilogue& epilogue, const Int8Layout& layout) {
  Int8Stream out;
  out.layout = layout;
  out.k = w.k();
  out.n = w.n();
  out.blocks = (out.k + layout.block - 1) / layout.block;
  out.groups = (out.n + layout.columns - 1) / layout.columns;
  out.scale = padded(epilogue.scale, out.groups * layout.columns);
  out.bias = padded(epilogue.bias, out.groups * layout.columns);
  if (w.nearly_dense() != nullptr && pack_dense(*w.nearly_dense(), &out)) return out;
  out.column_sum = padded(column_sums(w.columns()), out.groups * layout.columns);
  out.bytes.clear();
  pack_groups(w.columns(), &out);
  return out;
}

}  // namespace sparsify
