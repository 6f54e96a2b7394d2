#include "bf16_stream.h"

#include <algorithm>

namespace sparsify {
namespace {

constexpr int64_t kPair = Bf16Stream::kPair;

// What a step costs, measured on Zen 4 with 8 rows: a plain one is a broadcast and two products.
constexpr int64_t kPlainCost = 4, kOneCost = 5, kBothCost = 8;

// Non-zeros of each column of a pair in the low and in the high half of a block.
using Counts = uint8_t[2][kPair];

// Steps of both halves that are needed beside `low` and `high` ones.
int64_t both_beside(const Counts& counts, int64_t low, int64_t high) {
  int64_t most = 0;
  for (int64_t c = 0; c < kPair; ++c) {
    const int64_t over = std::max<int64_t>(counts[0][c] - 2 * low, 0) + std::max<int64_t>(counts[1][c] - 2 * high, 0);
    most = std::max(most, over);
  }
  return (most + 1) / 2;
}

// Columns with fewer non-zeros in a half than 2 * steps leave slots empty, those with more need steps of both: the best
// number lies from the fewest to the most of any column.
Bf16Steps cheapest(const Counts& counts) {
  int64_t from[2], to[2];
  for (int half = 0; half < 2; ++half) {
    from[half] = *std::min_element(counts[half], counts[half] + kPair) / 2;
    to[half] = (*std::max_element(counts[half], counts[half] + kPair) + 1) / 2;
  }
  int64_t least = kPlainCost * Bf16Stream::kPlain;
  Bf16Steps best{0, 0, 0, Bf16Stream::kPlain};
  for (int64_t low = from[0]; low <= to[0]; ++low) {
    for (int64_t high = from[1]; high <= to[1]; ++high) {
      if (kOneCost * (low + high) >= least) break;
      const int64_t both = both_beside(counts, low, high), cost = kOneCost * (low + high) + kBothCost * both;
      if (cost >= least) continue;
      least = cost;
      best = {static_cast<uint8_t>(low), static_cast<uint8_t>(high), static_cast<uint8_t>(both), 0};
    }
  }
  return best;
}

}  // namespace

Bf16Stream::Bf16Stream(const Csc<uint16_t>& w, const std::vector<float>& given_bias)
    : k(w.k),
      n(w.n),
      blocks((w.k + kBlock - 1) / kBlock),
      pairs((w.n + kPair - 1) / kPair),
      bias(aligned<float>(pairs * kPair)) {
  std::fill(bias.get(), bias.get() + pairs * kPair, 0.0f);
  std::copy(given_bias.begin(), given_bias.end(), bias.get());
  count(w);
  fill(w);
}

int64_t Bf16Stream::bytes() const {
  return 2 * offset.back() + static_cast<int64_t>(steps.size() * (sizeof(Bf16Steps) + 8)) + 4 * pairs * kPair;
}

void Bf16Stream::count(const Csc<uint16_t>& w) {
  steps.resize(static_cast<size_t>(pairs * blocks));
  offset.assign(static_cast<size_t>(pairs * blocks) + 1, 0);
  std::vector<uint8_t> counts(static_cast<size_t>(blocks) * sizeof(Counts));  // of one pair
  for (int64_t pair = 0; pair < pairs; ++pair) {
    std::fill(counts.begin(), counts.end(), uint8_t{0});
    auto* of_block = reinterpret_cast<Counts*>(counts.data());
    for (int64_t c = pair * kPair; c < std::min((pair + 1) * kPair, n); ++c) {
      for (int64_t i = w.start[c]; i < w.start[c + 1]; ++i) {
        ++of_block[w.row[i] / kBlock][w.row[i] / kStep % 2][c % kPair];
      }
    }
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t at = pair * blocks + b;
      const Bf16Steps s = steps[at] = cheapest(of_block[b]);
      offset[at + 1] = offset[at] + kStep * groups(pair) * (2 * (s.low + s.high + s.both) + s.plain);
    }
  }
}

void Bf16Stream::fill(const Csc<uint16_t>& w) {
  data = aligned<uint16_t>(offset.back());
  std::fill(data.get(), data.get() + offset.back(), uint16_t{0});
  for (int64_t c = 0; c < n; ++c) {
    const int64_t pair = c / kPair, group = c / kGroup % 2, lane = c % kGroup;
    int64_t block = -1, slot[3] = {}, end[3] = {};  // of low, high and both
    for (int64_t i = w.start[c]; i < w.start[c + 1]; ++i) {
      const Bf16Steps s = steps[pair * blocks + w.row[i] / kBlock];
      if (w.row[i] / kBlock != block) {
        block = w.row[i] / kBlock;
        slot[0] = 0;
        slot[1] = end[0] = 2 * s.low;
        slot[2] = end[1] = 2 * (s.low + s.high);
        end[2] = 2 * (s.low + s.high + s.both);
      }
      const int64_t position = w.row[i] % kBlock, half = position / kStep, kind = slot[half] < end[half] ? half : 2;
      const int64_t at = s.plain != 0 ? position : slot[kind]++, width = s.plain != 0 ? kStep : 2 * kStep;
      const int64_t step = (at / 2 * groups(pair) + group) * width;
      uint16_t* to = data.get() + offset[pair * blocks + block] + step + 2 * lane + at % 2;
      if (s.plain == 0) to[0] = static_cast<uint16_t>(kind == 2 ? position : position % kStep);
      to[s.plain != 0 ? 0 : kStep] = w.value[i];
    }
  }
}

}  // namespace sparsify
