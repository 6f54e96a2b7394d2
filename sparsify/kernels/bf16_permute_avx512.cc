// bf16 W by register permutes, for AVX-512 with BF16.
//
// Lanes are 16 output columns, a column group. One step serves 2 non-zeros of each column of the group, from a window
// of 32 or 64 inputs of one rounded row:
//
//   vpermw      t = x[positions]               32 stored 5-bit positions: a narrow step
//   vpermi2w    or t = {x, next}[positions]    6-bit positions: a wide step
//   vdpbf16ps   acc += t * weights             2 products a lane, summed in float32
//
// bf16_stream.h says which steps a pair of groups takes; one without permutes, for dense blocks, broadcasts two inputs.
//
// A tile is 8 rows by 2 groups: 16 accumulators; one load of x feeds both groups, one load of weights 8 rows. With
// fewer than 4 rows steps go to several accumulators in turn: vdpbf16ps has a latency of 6 cycles.
//
// Rounding: products are exact, each lane of a step adds two of them to a sum, |error| <= gamma_nnz sum |x w| with
// u = 2^-24 whether or not a CPU rounds in between. vdpbf16ps and the conversion take denormals for 0.
// K tails read zeros behind the rounded row; N tails multiply by zero weights and are masked when stored.
#include <immintrin.h>

#include <algorithm>
#include <limits>

#include "bf16.h"
#include "bf16_stream.h"
#include "contract.h"
#include "epilogue-inl.h"
#include "tasks.h"
#include "tiles_avx512.h"
#include "vector_avx512.h"
#include "weights.h"

namespace sparsify {
namespace {

constexpr int64_t kBlock = Bf16Stream::kBlock, kPair = Bf16Stream::kPair, kGroup = Bf16Stream::kGroup;
constexpr int64_t kWidth = Bf16Stream::kWidth;
constexpr int64_t kRegister = 32;  // numbers
constexpr int64_t kRows = 8;  // of a tile

template <int R, int G>
using Sums = __m512[G][R];

inline __m512bh as_bf16(__m512i v) { return reinterpret_cast<__m512bh>(v); }

template <int R, int G>
inline void plain_step(const uint16_t* w, const uint16_t* x, int64_t stride, Sums<R, G>& acc) {
  for (int r = 0; r < R; ++r) {
    int32_t two;
    std::memcpy(&two, x + r * stride, sizeof two);
    for (int g = 0; g < G; ++g) {
      const __m512i weight = _mm512_load_si512(w + kRegister * g);
      acc[g][r] = _mm512_dpbf16_ps(acc[g][r], as_bf16(_mm512_set1_epi32(two)), as_bf16(weight));
    }
  }
}

#if defined(SPARSIFY_ASSEMBLY)
#define SPARSIFY_PICK_NARROW(row, t) SPARSIFY_PICK("vpermw", row, t)
SPARSIFY_FOUR_ROWS(four_narrow_rows, __m512, "vdpbf16ps", SPARSIFY_PICK_NARROW)
SPARSIFY_FOUR_ROWS(four_wide_rows, __m512, "vdpbf16ps", SPARSIFY_PICK_WIDE)
#endif

// The window at x, aligned to 16 bytes.
template <bool kWide, int R, int G>
inline void permuted_step(const uint16_t* w, const uint16_t* x, int64_t stride, Sums<R, G>& acc) {
  __m512i position[G], weight[G];
  for (int g = 0; g < G; ++g) {
    position[g] = _mm512_load_si512(w + kRegister * g);
    weight[g] = _mm512_load_si512(w + kWidth + kRegister * g);
  }
#if defined(SPARSIFY_ASSEMBLY)
  if constexpr (R == 8 && G == 2) {
    const auto* q = reinterpret_cast<const uint8_t*>(x);
    return eight_rows(kWide ? four_wide_rows : four_narrow_rows, q, 2 * stride, position, weight, acc[0], acc[1]);
  }
#endif
  for (int r = 0; r < R; ++r) {
    __m512i low = _mm512_loadu_si512(x + r * stride), high = low;
    if constexpr (kWide) high = _mm512_loadu_si512(x + r * stride + kRegister);
    hold(low);
    if constexpr (kWide) hold(high);
    for (int g = 0; g < G; ++g) {
      const __m512i t = kWide ? _mm512_permutex2var_epi16(low, position[g], high)
                              : _mm512_permutexvar_epi16(position[g], low);
      acc[g][r] = _mm512_dpbf16_ps(acc[g][r], as_bf16(t), as_bf16(weight[g]));
    }
  }
}

// Steps whose windows start at [window, stop), in turn to every acc[c]; w is their stream. Returns its end.
template <bool kWide, int R, int G, int C>
inline const uint16_t* sliding_steps(const uint32_t* window, const uint32_t* stop, const uint16_t* w, const uint16_t* x,
                                     int64_t stride, Sums<R, G> (&acc)[C]) {
  for (; C > 1 && stop - window >= C; window += C) {
    for (int c = 0; c < C; ++c, w += 2 * kWidth) permuted_step<kWide, R, G>(w, x + window[c], stride, acc[c]);
  }
  for (; window != stop; ++window, w += 2 * kWidth) permuted_step<kWide, R, G>(w, x + *window, stride, acc[0]);
  return w;
}

// The steps of all blocks, in turn to every acc[c]; w is their stream. Returns its end.
template <int R, int G, int C>
inline const uint16_t* block_steps(const uint8_t* code, int64_t blocks, const uint16_t* w, const uint16_t* x,
                                   int64_t stride, Sums<R, G> (&acc)[C]) {
  for (int64_t b = 0; b < blocks; ++b, x += kBlock) {
    if (code[b] == Bf16Stream::kPlain) {
      for (int i = 0; i < kBlock / 2; i += C) {
        for (int c = 0; c < C; ++c, w += kWidth) plain_step<R, G>(w, x + 2 * (i + c), stride, acc[c]);
      }
      continue;
    }
    for (int i = 0; i < code[b]; ++i, w += 2 * kWidth) permuted_step<true, R, G>(w, x, stride, acc[i % C]);
  }
  return w;
}

class Bf16Permute final : public Product {
 public:
  Bf16Permute(const Weights<uint16_t>& w, const Epilogue& epilogue)
      : w_(w, epilogue.bias),
        activation_(epilogue.activation) {}

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    const RoundedRows rounded(rows, w_.k);
    const auto round = [&](int64_t first, int64_t last) {
      for (int64_t m = first; m < last; ++m) {
        rounded.poison[m] = round_row(x + m * w_.k, rounded.bits + m * rounded.stride, rounded.stride);
      }
    };
    in_tasks(rows, w_.k, false, 2 * w_.offset.back(), w_.pairs, pool, round,
             [&](int64_t first, int64_t last, int64_t pair, int64_t end) {
               for (int64_t m = first; m < last; m += kRows) {
                 const int64_t at = m * w_.n;
                 const float* added = residual == nullptr ? nullptr : residual + at;
                 for_rows(std::min(kRows, last - m),
                          [&](auto r) { tiles<r.value>(pair, end, rounded, m, added, y + at); });
               }
             });
  }

  int64_t bytes() const override { return w_.bytes(); }

 private:
  // Rounds x [K] to out [stride] and returns the row's poison.
  float round_row(const float* x, uint16_t* out, int64_t stride) const {
    const __m512i exponent = _mm512_set1_epi16(0x7F80);
    __mmask32 infinite = 0;
    for (int64_t i = 0; i < stride; i += kRegister) {
      const __m512 low = _mm512_maskz_loadu_ps(first_lanes(std::max<int64_t>(w_.k - i, 0)), x + i);
      const __m512 high = _mm512_maskz_loadu_ps(first_lanes(std::max<int64_t>(w_.k - i - 16, 0)), x + i + 16);
      const auto bits = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
      infinite |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(bits, exponent), exponent);
      _mm512_store_si512(out + i, bits);
    }
    return infinite != 0 ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
  }

  // Tiles of the pairs [first, end), of G groups each, and R rows of the residual and y from row m on. What a tile needs
  // stands in locals: for all that the compiler knows, a store could change what stands behind `this` and `in`.
  template <int R, int G>
  void tiles(int64_t first, int64_t end, const RoundedRows& in, int64_t m, const float* residual, float* y) const {
    constexpr int C = R == 1 ? 4 : R <= 3 ? 2 : 1;
    const int64_t n = w_.n, stride = in.stride;
    const uint16_t* x = in.bits + m * stride;
    const float* poison = in.poison + m;
    const uint32_t* windows = w_.window.data();
    const int64_t* first_window = w_.first_window.data();
    const uint32_t* window = windows + first_window[first];
    const uint16_t* w = w_.data.data() + w_.offset[first];
    const Ending ending = ending_of(activation_, residual);
    for (int64_t p = first; p < end; ++p) {
      Sums<R, G> acc[C];
      begin<R, G>(poison, acc);
      const uint32_t* stop = windows + first_window[p + 1];
      switch (w_.kind[p]) {
        case Bf16Stream::Kind::kNarrow: w = sliding_steps<false, R, G>(window, stop, w, x, stride, acc); break;
        case Bf16Stream::Kind::kWide: w = sliding_steps<true, R, G>(window, stop, w, x, stride, acc); break;
        default: w = block_steps<R, G>(w_.code.data() + p * w_.blocks, w_.blocks, w, x, stride, acc);
      }
      window = stop;
      merge<R, G>(acc);
      const int64_t c = p * kPair;
      if (ending == Ending::kLonger) {
        finish_longer<R, G>(acc[0], c, residual, y);
      } else if (ending == Ending::kAdd) {
        finish<R, G, Ending::kAdd>(acc[0], c, n, residual, y);
      } else if (ending == Ending::kRelu) {
        finish<R, G, Ending::kRelu>(acc[0], c, n, nullptr, y);
      } else {
        finish<R, G, Ending::kNothing>(acc[0], c, n, nullptr, y);
      }
    }
  }

  template <int R, int G, int C>
  static void begin(const float* poison, Sums<R, G> (&acc)[C]) {
    for (int c = 0; c < C; ++c) {
      for (int g = 0; g < G; ++g) {
        for (int r = 0; r < R; ++r) acc[c][g][r] = c == 0 ? _mm512_set1_ps(poison[r]) : _mm512_setzero_ps();
      }
    }
  }

  // acc[0] += all others
  template <int R, int G, int C>
  static void merge(Sums<R, G> (&acc)[C]) {
    for (int c = 1; c < C; ++c) {
      for (int g = 0; g < G; ++g) {
        for (int r = 0; r < R; ++r) acc[0][g][r] = _mm512_add_ps(acc[0][g][r], acc[c][g][r]);
      }
    }
  }

  // Bias, ending, store: acc[g][r] is row r of y, columns c + 16 g. Unrolled, so that acc never leaves its registers; a
  // longer ending would be too long for that.
  template <int R, int G, Ending kEnding>
  void finish(const Sums<R, G>& acc, int64_t c, int64_t n, const float* residual, float* y) const {
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g, c += kGroup) {
      const __m512 bias = _mm512_load_ps(w_.bias.get() + c);
      const __mmask16 inside = first_lanes(n - c);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        end<kEnding>(_mm512_add_ps(acc[g][r], bias), inside, kEnding == Ending::kAdd ? residual + r * n + c : nullptr,
                     y + r * n + c);
      }
    }
  }

  template <int R, int G>
  void finish_longer(const Sums<R, G>& acc, int64_t c, const float* residual, float* y) const {
    alignas(64) float sums[G][R][kGroup];
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) _mm512_store_ps(sums[g][r], acc[g][r]);
    }
    for (int g = 0; g < G; ++g) finish_group(sums[g][0], R, c + g * kGroup, residual, y);
  }

  // sums [rows, 16], of columns c to c + 15; changed
  __attribute__((noinline)) void finish_group(float* sums, int rows, int64_t c, const float* residual, float* y) const {
    const __m512 bias = _mm512_load_ps(w_.bias.get() + c);
    const __mmask16 inside = first_lanes(w_.n - c);
    for (int r = 0; r < rows; ++r) {
      _mm512_store_ps(sums + r * kGroup, _mm512_add_ps(_mm512_load_ps(sums + r * kGroup), bias));
    }
    activate<Avx512Lanes>(sums, rows, activation_);
    for (int r = 0; r < rows; ++r) {
      const int64_t at = r * w_.n + c;
      __m512 v = _mm512_load_ps(sums + r * kGroup);
      if (residual != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(inside, residual + at));
      _mm512_mask_storeu_ps(y + at, inside, v);
    }
  }

  // The last pair may have one group only.
  template <int R>
  void tiles(int64_t first, int64_t end, const RoundedRows& in, int64_t m, const float* residual, float* y) const {
    const int64_t whole = std::min(end, (w_.n + kGroup - 1) / kPair);
    tiles<R, 2>(first, whole, in, m, residual, y);
    if (whole < end) tiles<R, 1>(whole, end, in, m, residual, y);
  }

  Bf16Stream w_;
  Activation activation_;
};

}  // namespace

std::unique_ptr<Product> bf16_permute_avx512(const Weights<uint16_t>& w, Epilogue epilogue) {
  return std::make_unique<Bf16Permute>(w, epilogue);
}

}  // namespace sparsify
