// int8 W by register permutes, for AVX-512 with VBMI and VNNI.
//
// Lanes are 16 output columns, a column group. A block of 64 inputs of one quantised row is one zmm register x.
// One step serves 4 non-zeros of each column of the group:
//
//   vpermb     t = x[positions]                 64 stored 6-bit positions; Zen 4 ports FP1/FP2, Zen 5 two a cycle
//   vpdpbusd   acc += t (u8) * weights (s8)     4 products a lane, no saturation; Zen 4 FP0/FP1
//
// A tile is 8 rows by 2 groups, a pair: 16 accumulators; one load of x feeds both groups, one load of weights 8 rows.
// int8_stream.h says in which order steps come; a group there is a pair here.
//
// Overflow: |sum| <= nnz(column) * 255 * 128 < 2^31 while a column holds no more than kMostInColumn non-zeros; decode
// refuses more. K tails read zeros that quantisation put behind the row; N tails multiply by zero weights and
// are masked when stored.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "contract.h"
#include "epilogue-inl.h"
#include "int8_stream.h"
#include "quantize_avx512.h"
#include "scratch.h"
#include "vector_avx512.h"
#include "weights.h"

namespace sparsify {
namespace {

constexpr int64_t kBlock = 64;         // inputs: bytes of a zmm register
constexpr int64_t kGroup = 16;         // columns: int32 lanes of a zmm register
constexpr int64_t kPair = 2 * kGroup;  // columns of a tile
constexpr int64_t kWidth = 4 * kPair;  // bytes of weights of a step
constexpr int64_t kRows = 8;           // rows of a tile
constexpr int64_t kTaskRows = 128;
constexpr int64_t kAhead = 2;  // tiles between asking for a residual and reading it

// A step with its permute costs 1.35 plain ones on Zen 4, 1.4 on Zen 5. A window that starts on a multiple of 16 lies in
// one cache line in one case of four; starting anywhere would save another 3 % of the steps.
constexpr Int8Layout kLayout{kPair, kBlock, 27, 20, 16, false};

template <int R, int G>
using Sums = __m512i[G][R];

// acc[g][r] += row r of the inputs at q times group g of the permute step at w.
template <int R, int G>
inline void permuted_step(const uint8_t* w, const uint8_t* q, int64_t stride, Sums<R, G>& acc) {
  __m512i position[G], weight[G];
  for (int g = 0; g < G; ++g) {
    position[g] = _mm512_load_si512(w + 64 * g);
    weight[g] = _mm512_load_si512(w + kWidth + 64 * g);
  }
  for (int r = 0; r < R; ++r) {
    __m512i x = _mm512_loadu_si512(q + r * stride);
    hold(x);
    for (int g = 0; g < G; ++g) {
      acc[g][r] = _mm512_dpbusd_epi32(acc[g][r], _mm512_permutexvar_epi8(position[g], x), weight[g]);
    }
  }
}

// The same for the plain step at w and 4 inputs at q.
template <int R, int G>
inline void plain_step(const uint8_t* w, const uint8_t* q, int64_t stride, Sums<R, G>& acc) {
  for (int r = 0; r < R; ++r) {
    int32_t four;
    std::memcpy(&four, q + r * stride, 4);
    for (int g = 0; g < G; ++g) {
      acc[g][r] = _mm512_dpbusd_epi32(acc[g][r], _mm512_set1_epi32(four), _mm512_load_si512(w + 64 * g));
    }
  }
}

// acc[g][r] += row r of q times group g of a pair that goes block by block; w is its stream.
template <int R, int G>
inline void accumulate_blocks(const uint8_t* code, int64_t blocks, const uint8_t* w, const uint8_t* q, int64_t stride,
                              Sums<R, G>& acc) {
  for (int64_t b = 0; b < blocks; ++b, q += kBlock) {
    const int count = code[b];
    if (count == Int8Stream::kPlain) {
      for (int i = 0; i < kBlock / 4; ++i, w += kWidth) plain_step<R, G>(w, q + 4 * i, stride, acc);
      continue;
    }
    for (int i = 0; i < count; ++i, w += 2 * kWidth) permuted_step<R, G>(w, q, stride, acc);
  }
}

class Int8Permute final : public Int8Product {
 public:
  Int8Permute(const Weights<int8_t>& w, const Epilogue& epilogue)
      : stream_(pack_int8(w, epilogue, kLayout)),
        k_(w.k()),
        n_(w.n()),
        activation_(epilogue.activation),
        least_(_mm512_set1_ps(activation_ == Activation::kRelu ? 0.0f : -std::numeric_limits<float>::infinity())) {}

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    const QuantizedRoom room(rows, k_);
    const auto quantize = [&](int64_t first, int64_t last) {
      quantize_rows_avx512(x, first, last, k_, room.width, room.stride, room.q, [&](int64_t m, const RowScale& row) {
        room.scale[m] = row.scale;
        room.zero_point[m] = row.zero_point;
      });
    };
    multiply(room.rows(), rows, rows, quantize, residual, y, pool);
  }

  void run(const Quantized& x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    if (k_ % kAlignment == 0) {
      return multiply(in_place(x, rows, k_), rows, 0, [](int64_t, int64_t) {}, residual, y, pool);
    }
    const QuantizedRoom room(rows, k_);
    const auto take = [&](int64_t first, int64_t last) {
      for (int64_t m = first; m < last; ++m) take_row<false>(x, m, k_, room);
    };
    multiply(room.rows(), rows, rows, take, residual, y, pool);
  }

  int64_t bytes() const override { return stream_.size(); }

 private:
  int groups(int64_t pair) const { return n_ - pair * kPair > kGroup ? 2 : 1; }

  // y from quantised rows, when prepare(first, last) was called for all m below `unprepared`, which is 0 or `rows`.
  template <class F>
  void multiply(const QuantizedRows& quantized, int64_t rows, int64_t unprepared, F&& prepare, const float* residual,
                float* y, const Pool& pool) const {
    const int64_t some = rows_of_task(k_);
    const auto prepare_some = [&](int64_t task) { prepare(task * some, std::min((task + 1) * some, rows)); };

    // A task is a block of rows times a chunk of pairs.
    const int64_t row_blocks = (rows + kTaskRows - 1) / kTaskRows;
    const int64_t pairs = pieces_of_task(stream_.offset.back(), stream_.groups, std::min(rows, kTaskRows));
    const int64_t chunks = (stream_.groups + pairs - 1) / pairs;
    pool.each_then_each((unprepared + some - 1) / some, prepare_some, row_blocks * chunks, [&](int64_t task) {
      const int64_t first = task / chunks * kTaskRows, last = std::min(first + kTaskRows, rows);
      const int64_t pair = task % chunks * pairs, end = std::min(pair + pairs, stream_.groups);
      for (int64_t m = first; m < last; m += kRows) {
        for (int64_t p = pair; p < end; ++p) {
          if (residual != nullptr) {
            const bool here = p + kAhead < end;
            prefetch(residual, here ? m : m + kRows, last, here ? p + kAhead : std::min(p + kAhead - end + pair, end - 1));
          }
          tile(p, quantized, m, std::min(kRows, last - m), residual, y);
        }
      }
    });
  }

  // The residual of a tile, of rows below `last`. No hardware prefetcher follows 8 rows of two lines each: without this
  // a sum with a residual that had left L2 took 1.8 times as long (384x384, 1024 rows, Zen 5).
  void prefetch(const float* residual, int64_t m, int64_t last, int64_t pair) const {
    for (int64_t r = m; r < std::min(m + kRows, last); ++r) {
      const auto* line = reinterpret_cast<const char*>(residual + r * n_ + pair * kPair);
      _mm_prefetch(line, _MM_HINT_T0);
      _mm_prefetch(line + 64, _MM_HINT_T0);
    }
  }

  template <int R, int G>
  void tile(int64_t pair, const QuantizedRows& in, int64_t m, const float* residual, float* y) const {
    Sums<R, G> acc;
    for (auto& group : acc) {
      for (auto& row : group) row = _mm512_setzero_si512();
    }
    const uint8_t* w = stream_.bytes.data() + stream_.offset[pair];
    const uint8_t* q = in.q + m * in.stride;
    const int64_t windows = stream_.windows(pair);
    const uint32_t* window = stream_.window.data() + stream_.first_window[pair];
    for (int64_t i = 0; i < windows; ++i, w += 2 * kWidth) permuted_step<R, G>(w, q + window[i], in.stride, acc);
    const uint8_t* code = stream_.code.data() + pair * stream_.blocks;
    if (windows == 0) accumulate_blocks<R, G>(code, stream_.blocks, w, q, in.stride, acc);
    finish<R, G>(acc, pair * kPair, in, m, residual, y);
  }

  // Dequantise, bias, activation, store: acc[g][r] is row m + r, columns c + 16 g. Unrolled, so that acc never leaves
  // its registers; what is longer than Relu, or adds a residual, would be too long for that.
  template <int R, int G>
  void finish(const Sums<R, G>& acc, int64_t c, const QuantizedRows& in, int64_t m, const float* residual,
              float* y) const {
    if (residual != nullptr || (activation_ != Activation::kNone && activation_ != Activation::kRelu)) {
      alignas(64) int32_t sums[G][R][kGroup];
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) _mm512_store_si512(sums[g][r], acc[g][r]);
      }
      for (int g = 0; g < G; ++g) finish_longer(sums[g][0], R, c + g * kGroup, in, m, residual, y);
      return;
    }
    // Copies: for all that the compiler knows, a store could change what stands behind `this` and `in`.
    const int64_t n = n_;
    const __m512 least = least_;
    const float* row_scale = in.scale + m;
    const int32_t* zero_point = in.zero_point + m;
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g, c += kGroup) {
      const __m512i sum = _mm512_load_si512(stream_.column_sum.get() + c);
      const __m512 scale = _mm512_load_ps(stream_.scale.get() + c), bias = _mm512_load_ps(stream_.bias.get() + c);
      const __mmask16 inside = first_lanes(n - c);
      float* out = y + m * n + c;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512 v = dequantized(acc[g][r], sum, zero_point[r], row_scale[r], scale);
        _mm512_mask_storeu_ps(out + r * n, inside, _mm512_max_ps(least, _mm512_add_ps(v, bias)));
      }
    }
  }

  static __m512 dequantized(__m512i total, __m512i column_sum, int32_t zero_point, float row_scale, __m512 scale) {
    const __m512i shift = _mm512_mullo_epi32(column_sum, _mm512_set1_epi32(zero_point));
    const __m512 shifted = _mm512_cvtepi32_ps(_mm512_sub_epi32(total, shift));
    return _mm512_mul_ps(_mm512_mul_ps(shifted, _mm512_set1_ps(row_scale)), scale);
  }

  // sums [rows, 16], of columns c to c + 15
  __attribute__((noinline)) void finish_longer(const int32_t* sums, int rows, int64_t c, const QuantizedRows& in,
                                               int64_t m, const float* residual, float* y) const {
    const __m512i sum = _mm512_load_si512(stream_.column_sum.get() + c);
    const __m512 scale = _mm512_load_ps(stream_.scale.get() + c), bias = _mm512_load_ps(stream_.bias.get() + c);
    const __mmask16 inside = first_lanes(n_ - c);
    alignas(64) float waiting[kRows * kGroup];
    for (int r = 0; r < rows; ++r) {
      const __m512i total = _mm512_load_si512(sums + r * kGroup);
      const __m512 v = dequantized(total, sum, in.zero_point[m + r], in.scale[m + r], scale);
      _mm512_store_ps(waiting + r * kGroup, _mm512_add_ps(v, bias));
    }
    activate<Avx512Lanes>(waiting, rows, activation_);
    for (int r = 0; r < rows; ++r) {
      const int64_t at = (m + r) * n_ + c;
      __m512 v = _mm512_load_ps(waiting + r * kGroup);
      if (residual != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(inside, residual + at));
      _mm512_mask_storeu_ps(y + at, inside, v);
    }
  }

  template <int R>
  void tile(int64_t pair, const QuantizedRows& in, int64_t m, const float* residual, float* y) const {
    groups(pair) == 2 ? tile<R, 2>(pair, in, m, residual, y) : tile<R, 1>(pair, in, m, residual, y);
  }

  void tile(int64_t pair, const QuantizedRows& in, int64_t m, int64_t rows, const float* residual, float* y) const {
    switch (rows) {
      case 1: return tile<1>(pair, in, m, residual, y);
      case 2: return tile<2>(pair, in, m, residual, y);
      case 3: return tile<3>(pair, in, m, residual, y);
      case 4: return tile<4>(pair, in, m, residual, y);
      case 5: return tile<5>(pair, in, m, residual, y);
      case 6: return tile<6>(pair, in, m, residual, y);
      case 7: return tile<7>(pair, in, m, residual, y);
      default: return tile<8>(pair, in, m, residual, y);
    }
  }

  Int8Stream stream_;
  int64_t k_, n_;
  Activation activation_;
  __m512 least_;  // 0 for Relu, else minus infinity; max(least, NaN) is NaN
};

}  // namespace

std::unique_ptr<Int8Product> int8_permute_avx512_vbmi(const Weights<int8_t>& w, Epilogue epilogue) {
  return std::make_unique<Int8Permute>(w, epilogue);
}

}  // namespace sparsify
