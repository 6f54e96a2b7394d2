// bf16 W by register permutes, for AVX-512 with BF16.
//
// Lanes are 16 output columns, a column group. A block of 64 inputs of one rounded row is two zmm registers, low and high.
// One step serves 2 non-zeros of each column of the group:
//
//   vpermi2w    t = {low, high}[positions]      32 stored 6-bit positions
//   vdpbf16ps   acc += t * weights              2 products a lane, summed in float32
//
// A tile is 8 rows by 2 groups: 16 accumulators; one load of x feeds both groups, one load of weights 8 rows. A block
// with a column of more than 2 (kDenseFrom - 1) non-zeros takes 32 plain steps instead, without positions (kDense). With
// fewer than 4 rows steps go to several accumulators in turn: vdpbf16ps has a latency of 6 cycles.
//
// Rounding: products are exact, each lane of a step adds two of them to a sum, |error| <= (nnz + 1) u sum |x w| with
// u = 2^-24 whether or not a CPU rounds in between. vdpbf16ps and the conversion take denormals for 0.
// K tails read zeros behind the rounded row; N tails multiply by zero weights and are masked when stored.
#include <immintrin.h>

#include <algorithm>
#include <limits>

#include "bf16.h"
#include "contract.h"
#include "epilogue-inl.h"
#include "vector_avx512.h"

namespace sparsify {
namespace {

constexpr int64_t kBlock = 64;         // inputs: two zmm registers
constexpr int64_t kGroup = 16;         // columns: float lanes of a zmm register
constexpr int64_t kPair = 2 * kGroup;  // columns of a tile
constexpr int64_t kRows = 8;           // rows of a tile
constexpr int64_t kStep = 32;          // numbers of a register
constexpr uint8_t kDense = 32;         // steps of a block without positions
constexpr int64_t kDenseFrom = 24;     // steps with positions from which plain ones are faster
constexpr int64_t kTaskRows = 128;
constexpr int64_t kTaskBytes = 128 << 10;  // weights: with the rows and outputs of a task, in half an L2 of 1 MB

template <int R, int G>
using Sums = __m512[G][R];

inline __m512bh as_bf16(__m512i v) { return reinterpret_cast<__m512bh>(v); }

template <int R, int G>
inline void plain_step(const uint16_t* w, const uint16_t* x, int64_t stride, Sums<R, G>& acc) {
  for (int r = 0; r < R; ++r) {
    int32_t two;
    std::memcpy(&two, x + r * stride, sizeof two);
    for (int g = 0; g < G; ++g) {
      const __m512i weight = _mm512_load_si512(w + kStep * g);
      acc[g][r] = _mm512_dpbf16_ps(acc[g][r], as_bf16(_mm512_set1_epi32(two)), as_bf16(weight));
    }
  }
}

template <int R, int G>
inline void permuted_step(const uint16_t* w, const uint16_t* x, int64_t stride, Sums<R, G>& acc) {
  __m512i position[G], weight[G];
  for (int g = 0; g < G; ++g) {
    position[g] = _mm512_load_si512(w + 2 * kStep * g);
    weight[g] = _mm512_load_si512(w + 2 * kStep * g + kStep);
  }
  for (int r = 0; r < R; ++r) {
    const __m512i low = _mm512_load_si512(x + r * stride), high = _mm512_load_si512(x + r * stride + kStep);
    for (int g = 0; g < G; ++g) {
      const __m512i t = _mm512_permutex2var_epi16(low, position[g], high);
      acc[g][r] = _mm512_dpbf16_ps(acc[g][r], as_bf16(t), as_bf16(weight[g]));
    }
  }
}

// acc[c][g][r] += rows r of x times group g, over all blocks; step i goes to c = i % C. `w` is this tile's stream.
template <int R, int G, int C>
inline void accumulate(const uint8_t* steps, int64_t blocks, const uint16_t* w, const uint16_t* x, int64_t stride,
                       Sums<R, G> (&acc)[C]) {
  for (int64_t b = 0; b < blocks; ++b, x += kBlock) {
    const int count = steps[b];
    if (count == kDense) {
      for (int i = 0; i < kDense; i += C) {
        for (int c = 0; c < C; ++c, w += kStep * G) plain_step<R, G>(w, x + 2 * (i + c), stride, acc[c]);
      }
      continue;
    }
    int i = 0;
    for (; i + C <= count; i += C) {
      for (int c = 0; c < C; ++c, w += 2 * kStep * G) permuted_step<R, G>(w, x, stride, acc[c]);
    }
    for (; i < count; ++i, w += 2 * kStep * G) permuted_step<R, G>(w, x, stride, acc[0]);
  }
}

class Bf16Permute final : public Product {
 public:
  Bf16Permute(const Csc<uint16_t>& w, const Epilogue& epilogue)
      : k_(w.k),
        n_(w.n),
        blocks_((w.k + kBlock - 1) / kBlock),
        pairs_((w.n + kPair - 1) / kPair),
        activation_(epilogue.activation),
        least_(_mm512_set1_ps(activation_ == Activation::kRelu ? 0.0f : -std::numeric_limits<float>::infinity())),
        bias_(aligned<float>(pairs_ * kPair)) {
    std::fill(bias_.get(), bias_.get() + pairs_ * kPair, 0.0f);
    std::copy(epilogue.bias.begin(), epilogue.bias.end(), bias_.get());
    count_steps(w);
    fill_stream(w);
  }

  void run(const float* x, int64_t rows, float* y, const Pool& pool) const override {
    const RoundedRows rounded(rows, k_);
    round(x, rows, rounded, pool);

    // A task is a block of rows times a chunk of pairs whose weights stay in L2 while all its rows go over them.
    const int64_t row_blocks = (rows + kTaskRows - 1) / kTaskRows;
    const int64_t pairs = std::clamp<int64_t>(kTaskBytes * pairs_ / std::max<int64_t>(2 * size_, 1), 1, pairs_);
    const int64_t chunks = (pairs_ + pairs - 1) / pairs;
    pool.each(row_blocks * chunks, [&](int64_t task) {
      const int64_t first = task / chunks * kTaskRows, last = std::min(first + kTaskRows, rows);
      const int64_t pair = task % chunks * pairs, end = std::min(pair + pairs, pairs_);
      for (int64_t m = first; m < last; m += kRows) {
        for (int64_t p = pair; p < end; ++p) tile(p, rounded, m, std::min(kRows, last - m), y);
      }
    });
  }

  int64_t bytes() const override { return 2 * size_ + blocks_ * pairs_ + 4 * pairs_ * kPair; }

 private:
  int groups(int64_t pair) const { return n_ - pair * kPair > kGroup ? 2 : 1; }

  // Calls visit(column, block, first non-zero, one past the last) for every column and block that has any.
  template <class Visit>
  void each_block(const Csc<uint16_t>& w, Visit visit) const {
    for (int64_t c = 0; c < n_; ++c) {
      int64_t i = w.start[c];
      while (i < w.start[c + 1]) {
        const int64_t block = w.row[i] / kBlock, first = i;
        while (i < w.start[c + 1] && w.row[i] / kBlock == block) ++i;
        visit(c, block, first, i);
      }
    }
  }

  void count_steps(const Csc<uint16_t>& w) {
    steps_.assign(static_cast<size_t>(pairs_ * blocks_), 0);
    each_block(w, [&](int64_t c, int64_t block, int64_t first, int64_t last) {
      uint8_t& steps = steps_[c / kPair * blocks_ + block];
      const int64_t needed = (last - first + 1) / 2;
      steps = static_cast<uint8_t>(std::max<int64_t>(steps, needed >= kDenseFrom ? kDense : needed));
    });
    offset_.assign(static_cast<size_t>(pairs_ * blocks_) + 1, 0);
    for (int64_t i = 0; i < pairs_ * blocks_; ++i) {
      offset_[i + 1] = offset_[i] + steps_[i] * groups(i / blocks_) * (steps_[i] == kDense ? kStep : 2 * kStep);
    }
    size_ = offset_.back();
  }

  void fill_stream(const Csc<uint16_t>& w) {
    stream_ = aligned<uint16_t>(size_);
    std::fill(stream_.get(), stream_.get() + size_, uint16_t{0});
    each_block(w, [&](int64_t c, int64_t block, int64_t first, int64_t last) {
      const int64_t pair = c / kPair, lane = c % kGroup, group = c / kGroup % 2, g = groups(pair);
      const bool dense = steps_[pair * blocks_ + block] == kDense;
      const int64_t width = dense ? kStep : 2 * kStep;
      uint16_t* base = stream_.get() + offset_[pair * blocks_ + block] + group * width + lane * 2;
      for (int64_t i = first; i < last; ++i) {
        const int64_t position = w.row[i] % kBlock, slot = dense ? position : i - first;
        uint16_t* at = base + slot / 2 * g * width + slot % 2;
        if (!dense) at[0] = static_cast<uint16_t>(position);
        at[dense ? 0 : kStep] = w.value[i];
      }
    });
  }

  void round(const float* x, int64_t rows, const RoundedRows& out, const Pool& pool) const {
    const int64_t chunk = std::max<int64_t>(1, (64 << 10) / k_);  // rows: some 10 us
    pool.each((rows + chunk - 1) / chunk, [&](int64_t task) {
      for (int64_t m = task * chunk; m < std::min((task + 1) * chunk, rows); ++m) {
        out.poison[m] = round_row(x + m * k_, out.bits + m * out.stride, out.stride);
      }
    });
  }

  // Rounds x [K] to out [stride] and returns the row's poison.
  float round_row(const float* x, uint16_t* out, int64_t stride) const {
    const __m512i exponent = _mm512_set1_epi16(0x7F80);
    __mmask32 infinite = 0;
    for (int64_t i = 0; i < stride; i += kStep) {
      const __m512 low = _mm512_maskz_loadu_ps(first_lanes(std::max<int64_t>(k_ - i, 0)), x + i);
      const __m512 high = _mm512_maskz_loadu_ps(first_lanes(std::max<int64_t>(k_ - i - 16, 0)), x + i + 16);
      const auto bits = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
      infinite |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(bits, exponent), exponent);
      _mm512_store_si512(out + i, bits);
    }
    return infinite != 0 ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
  }

  template <int R, int G>
  void tile(int64_t pair, const RoundedRows& in, int64_t m, float* y) const {
    constexpr int C = R == 1 ? 4 : R <= 3 ? 2 : 1;
    Sums<R, G> acc[C];
    for (int c = 0; c < C; ++c) {
      for (int g = 0; g < G; ++g) {
        for (int r = 0; r < R; ++r) acc[c][g][r] = c == 0 ? _mm512_set1_ps(in.poison[m + r]) : _mm512_setzero_ps();
      }
    }
    accumulate<R, G, C>(steps_.data() + pair * blocks_, blocks_, stream_.get() + offset_[pair * blocks_],
                        in.bits + m * in.stride, in.stride, acc);
    for (int c = 1; c < C; ++c) {
      for (int g = 0; g < G; ++g) {
        for (int r = 0; r < R; ++r) acc[0][g][r] = _mm512_add_ps(acc[0][g][r], acc[c][g][r]);
      }
    }
    finish<R, G>(acc[0], pair * kPair, y + m * n_);
  }

  // Bias, activation, store: acc[g][r] is row r of y, columns c + 16 g. Gelu is too long to unroll: it goes over what was
  // stored, which is still in L1.
  template <int R, int G>
  void finish(const Sums<R, G>& acc, int64_t c, float* y) const {
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g, c += kGroup) {
      const __m512 bias = _mm512_load_ps(bias_.get() + c);
      const __mmask16 inside = first_lanes(n_ - c);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        _mm512_mask_storeu_ps(y + r * n_ + c, inside, _mm512_max_ps(least_, _mm512_add_ps(acc[g][r], bias)));
      }
      if (activation_ != Activation::kGelu) continue;
      for (int r = 0; r < R; ++r) {
        const __m512 v = _mm512_maskz_loadu_ps(inside, y + r * n_ + c);
        _mm512_mask_storeu_ps(y + r * n_ + c, inside, activate<Avx512Lanes>(v, Activation::kGelu));
      }
    }
  }

  template <int R>
  void tile(int64_t pair, const RoundedRows& in, int64_t m, float* y) const {
    groups(pair) == 2 ? tile<R, 2>(pair, in, m, y) : tile<R, 1>(pair, in, m, y);
  }

  void tile(int64_t pair, const RoundedRows& in, int64_t m, int64_t rows, float* y) const {
    switch (rows) {
      case 1: return tile<1>(pair, in, m, y);
      case 2: return tile<2>(pair, in, m, y);
      case 3: return tile<3>(pair, in, m, y);
      case 4: return tile<4>(pair, in, m, y);
      case 5: return tile<5>(pair, in, m, y);
      case 6: return tile<6>(pair, in, m, y);
      case 7: return tile<7>(pair, in, m, y);
      default: return tile<8>(pair, in, m, y);
    }
  }

  int64_t k_, n_, blocks_, pairs_;
  Activation activation_;
  __m512 least_;                  // 0 for Relu, else minus infinity; max(least, NaN) is NaN
  Aligned<float> bias_;           // [pairs * 32]
  std::vector<uint8_t> steps_;    // [pairs, blocks]: 0 to kDenseFrom - 1 with positions, or kDense
  std::vector<int64_t> offset_;   // [pairs * blocks + 1] into stream_
  Aligned<uint16_t> stream_;      // a step: G times {positions [32], weights [32]}; dense: G times weights [32]
  int64_t size_ = 0;              // of stream_
};

}  // namespace

std::unique_ptr<Product> bf16_permute_avx512(const Csc<uint16_t>& w, Epilogue epilogue) {
  return std::make_unique<Bf16Permute>(w, epilogue);
}

}  // namespace sparsify
