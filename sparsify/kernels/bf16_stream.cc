#include "bf16_stream.h"

#include <algorithm>
#include <cstring>

#include "plain_steps.h"
#include "slide.h"

namespace sparsify {
namespace {

constexpr int64_t kPair = Bf16Stream::kPair, kBlock = Bf16Stream::kBlock, kWidth = Bf16Stream::kWidth;
constexpr int64_t kPlainSteps = kBlock / 2;  // of a block

// What a step costs with 8 rows on Zen 5: 1.85, 3.1 and 3.8 ns. With one row 1, 2 and 2.
constexpr int64_t kPlainCost = 20, kNarrowCost = 34, kWideCost = 41;

constexpr SlidingWindow kWide{kPair, 64, 32};

// Sets `code` [blocks] for the columns [first, last) and returns what all blocks cost.
int64_t count_blocks(const Csc<uint16_t>& w, int64_t first, int64_t last, int64_t blocks, uint8_t* code) {
  std::vector<uint8_t> here(static_cast<size_t>(blocks)), fullest(here);
  for (int64_t c = first; c < last; ++c) {
    std::fill(here.begin(), here.end(), uint8_t{0});
    for (int64_t i = w.start[c]; i < w.start[c + 1]; ++i) ++here[w.row[i] / kBlock];
    for (int64_t b = 0; b < blocks; ++b) fullest[b] = std::max(fullest[b], here[b]);
  }
  int64_t cost = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t wide = (fullest[b] + 1) / 2 * kWideCost, plain = kPlainSteps * kPlainCost;
    code[b] = wide < plain ? static_cast<uint8_t>((fullest[b] + 1) / 2) : Bf16Stream::kPlain;
    cost += std::min(wide, plain);
  }
  return cost;
}

// Numbers of a block's steps.
int64_t size_of(uint8_t code) { return code == Bf16Stream::kPlain ? kPlainSteps * kWidth : code * 2 * kWidth; }

// Writes the steps of the columns [first, last), block by block, to zeros at `data`.
void write_blocks(const Csc<uint16_t>& w, int64_t first, int64_t last, int64_t blocks, const uint8_t* code,
                  uint16_t* data) {
  std::vector<uint16_t*> start;
  for (int64_t b = 0; b < blocks; data += size_of(code[b++])) start.push_back(data);
  for (int64_t c = first; c < last; ++c) {
    int64_t block = -1, slot = 0;
    for (int64_t i = w.start[c]; i < w.start[c + 1]; ++i, ++slot) {
      if (w.row[i] / kBlock != block) block = w.row[i] / kBlock, slot = 0;
      const int64_t position = w.row[i] % kBlock, lane = 2 * (c - first);
      if (code[block] == Bf16Stream::kPlain) {
        start[block][position / 2 * kWidth + lane + position % 2] = w.value[i];
        continue;
      }
      uint16_t* to = start[block] + slot / 2 * 2 * kWidth + lane + slot % 2;
      to[0] = static_cast<uint16_t>(position);
      to[kWidth] = w.value[i];
    }
  }
}

}  // namespace

Bf16Stream::Bf16Stream(const Weights<uint16_t>& w, const std::vector<float>& given_bias)
    : k(w.k()),
      n(w.n()),
      blocks((k + kBlock - 1) / kBlock),
      pairs((n + kPair - 1) / kPair),
      kind(static_cast<size_t>(pairs)),
      code(static_cast<size_t>(pairs * blocks)),
      first_window{0},
      offset{0},
      bias(aligned<float>(pairs * kPair)) {
  std::fill(bias.get(), bias.get() + pairs * kPair, 0.0f);
  std::copy(given_bias.begin(), given_bias.end(), bias.get());
  if (w.nearly_dense() != nullptr && add_dense(*w.nearly_dense())) return;
  data.clear();
  for (int64_t pair = 0; pair < pairs; ++pair) {
    add_pair(w.columns(), pair);
    first_window.push_back(static_cast<int64_t>(window.size()));
    offset.push_back(static_cast<int64_t>(data.size()));
    // Pairs are much alike: with room for one and a half times the first, the rest seldom moves.
    if (pair == 0) data.reserve(static_cast<size_t>(offset.back() * pairs * 3 / 2));
  }
}

// Plain steps throughout, if that is what all pairs come to.
bool Bf16Stream::add_dense(const Encoded& in) {
  constexpr PlainLayout kPlainLayout{kPair, kBlock, kPlainSteps * kPlainCost, kWideCost, kNarrowCost};
  if (!pack_plain(in, kPlainLayout, &data, nullptr)) return false;
  std::fill(kind.begin(), kind.end(), Kind::kBlocks);
  std::fill(code.begin(), code.end(), kPlain);
  first_window.resize(static_cast<size_t>(pairs) + 1, 0);
  for (int64_t pair = 1; pair <= pairs; ++pair) offset.push_back(pair * blocks * kBlock * kPair);
  return true;
}

void Bf16Stream::add_pair(const Csc<uint16_t>& w, int64_t pair) {
  const int64_t first = pair * kPair, last = std::min(first + kPair, n), at = offset.back();
  uint8_t* codes = code.data() + pair * blocks;
  int64_t cost = count_blocks(w, first, last, blocks, codes);
  const SlidingWindow narrow_window{kPair, 32, hop_of_lines(w, first, last)};
  SlidingSteps narrow, wide;
  const SlidingSteps* best = nullptr;
  if (slide(w, first, last, narrow_window, cost / kNarrowCost, &narrow)) {
    cost = static_cast<int64_t>(narrow.start.size()) * kNarrowCost;
    best = &narrow;
    kind[pair] = Kind::kNarrow;
  }
  if (slide(w, first, last, kWide, cost / kWideCost, &wide)) {
    best = &wide;
    kind[pair] = Kind::kWide;
  }
  if (best != nullptr) {
    data.resize(static_cast<size_t>(at) + best->bytes.size() / 2);
    std::memcpy(data.data() + at, best->bytes.data(), best->bytes.size());
    window.insert(window.end(), best->start.begin(), best->start.end());
    return;
  }
  int64_t size = 0;
  for (int64_t b = 0; b < blocks; ++b) size += size_of(codes[b]);
  data.resize(static_cast<size_t>(at + size));
  std::fill(data.begin() + at, data.end(), uint16_t{0});
  write_blocks(w, first, last, blocks, codes, data.data() + at);
}

}  // namespace sparsify
