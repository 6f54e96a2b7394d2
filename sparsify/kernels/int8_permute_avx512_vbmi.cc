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

#include "contract.h"
#include "epilogue-inl.h"
#include "int8_steps_avx512.h"
#include "int8_stream.h"
#include "quantize_avx512.h"
#include "scratch.h"
#include "tasks.h"
#include "tiles_avx512.h"
#include "vector_avx512.h"
#include "weights.h"

namespace sparsify {
namespace {

constexpr int64_t kRows = 8;  // of a tile
constexpr int64_t kAhead = 2;  // tiles between asking for a residual and reading it

// A step with its permute costs 1.35 plain ones on Zen 4, 1.4 on Zen 5.
constexpr Int8Layout kLayout{kPair, kBlock, 27, 20, 0, false};

class Int8Permute final : public Int8Product {
 public:
  Int8Permute(const Weights<int8_t>& w, const Epilogue& epilogue)
      : stream_(pack_int8(w, epilogue, kLayout)),
        k_(w.k()),
        n_(w.n()),
        activation_(epilogue.activation) {}

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    const QuantizedRoom room(rows, k_);
    const auto quantize = [&](int64_t first, int64_t last) {
      quantize_rows_avx512(x, first, last, k_, room.width, room.stride, room.q, [&](int64_t m, const RowScale& row) {
        room.scale[m] = row.scale;
        room.zero_point[m] = row.zero_point;
      });
    };
    multiply(room.rows(), rows, false, quantize, residual, y, pool);
  }

  void run(const Quantized& x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    if (k_ % kAlignment == 0) {
      return multiply(in_place(x, rows, k_), rows, true, [](int64_t, int64_t) {}, residual, y, pool);
    }
    const QuantizedRoom room(rows, k_);
    const auto take = [&](int64_t first, int64_t last) {
      for (int64_t m = first; m < last; ++m) take_row<false>(x, m, k_, room);
    };
    multiply(room.rows(), rows, false, take, residual, y, pool);
  }

  int64_t bytes() const override { return stream_.size(); }

 private:
  // y from quantised rows, when prepare(first, last) was called for those that are not `prepared`.
  template <class F>
  void multiply(const QuantizedRows& quantized, int64_t rows, bool prepared, F&& prepare, const float* residual, float* y,
                const Pool& pool) const {
    in_tasks(rows, k_, prepared, stream_.offset.back(), stream_.groups, pool, prepare,
             [&](int64_t first, int64_t last, int64_t pair, int64_t end) {
               for (int64_t m = first; m < last; m += kRows) {
                 for_rows(std::min(kRows, last - m), [&](auto r) {
                   tiles<r.value>(pair, end, quantized, m, last, residual, y);
                 });
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

  // Tiles of the pairs [first, end), of G groups each, and rows m to m + R - 1. What a tile needs stands in locals: for all
  // that the compiler knows, a store could change what stands behind `this` and `in`.
  template <int R, int G>
  void tiles(int64_t first, int64_t end, const QuantizedRows& in, int64_t m, int64_t last, const float* residual,
             float* y) const {
    const int64_t n = n_, stride = in.stride;
    const uint8_t* q = in.q + m * stride;
    const int32_t* zero_point = in.zero_point + m;
    const float* scale = in.scale + m;
    const uint8_t* w = stream_.bytes.data() + stream_.offset[first];
    const int64_t* first_window = stream_.first_window.data();
    const uint32_t *windows = stream_.window.data(), *window = windows + first_window[first];
    const Ending ending = ending_of(activation_, residual);
    for (int64_t p = first; p < end; ++p) {
      if (residual != nullptr) {
        const bool here = p + kAhead < end;
        prefetch(residual, here ? m : m + kRows, last, here ? p + kAhead : std::min(p + kAhead - end + first, end - 1));
      }
      Sums<R, G> acc;
      begin<R, G>(p * kPair, zero_point, acc);
      const uint32_t* stop = windows + first_window[p + 1];
      if (window == stop) {
        w = accumulate_blocks<R, G>(stream_.code.data() + p * stream_.blocks, stream_.blocks, w, q, stride, acc);
      }
      for (; window != stop; ++window, w += 2 * kWidth) permuted_step<R, G>(w, q + *window, stride, acc);
      const int64_t c = p * kPair;
      if (ending == Ending::kLonger) {
        finish_longer<R, G>(acc, c, scale, m, residual, y);
      } else if (ending == Ending::kAdd) {
        finish<R, G, Ending::kAdd>(acc, c, scale, n, residual + m * n, y + m * n);
      } else if (ending == Ending::kRelu) {
        finish<R, G, Ending::kRelu>(acc, c, scale, n, nullptr, y + m * n);
      } else {
        finish<R, G, Ending::kNothing>(acc, c, scale, n, nullptr, y + m * n);
      }
    }
  }

  // Sums begin with the zero point's share: what q exceeds the quantised input by, times the sums of columns c and on.
  // They are right modulo 2^32 all along, and fit in the end.
  template <int R, int G>
  void begin(int64_t c, const int32_t* zero_point, Sums<R, G>& acc) const {
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      const __m512i sum = _mm512_load_si512(stream_.column_sum.get() + c + g * kGroup);
      const __m512i minus_sum = _mm512_sub_epi32(_mm512_setzero_si512(), sum);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) acc[g][r] = _mm512_mullo_epi32(minus_sum, _mm512_set1_epi32(zero_point[r]));
    }
  }

  // Dequantise, bias, ending, store: acc[g][r] is row r of y, columns c + 16 g. Unrolled, so that acc never leaves its
  // registers; a longer ending would be too long for that.
  template <int R, int G, Ending kEnding>
  void finish(const Sums<R, G>& acc, int64_t c, const float* row_scale, int64_t n, const float* residual, float* y) const {
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g, c += kGroup) {
      const __m512 scale = _mm512_load_ps(stream_.scale.get() + c), bias = _mm512_load_ps(stream_.bias.get() + c);
      const __mmask16 inside = first_lanes(n - c);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512 v = _mm512_add_ps(dequantized(acc[g][r], row_scale[r], scale), bias);
        end<kEnding>(v, inside, kEnding == Ending::kAdd ? residual + r * n + c : nullptr, y + r * n + c);
      }
    }
  }

  template <int R, int G>
  void finish_longer(const Sums<R, G>& acc, int64_t c, const float* row_scale, int64_t m, const float* residual,
                     float* y) const {
    alignas(64) int32_t sums[G][R][kGroup];
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) _mm512_store_si512(sums[g][r], acc[g][r]);
    }
    for (int g = 0; g < G; ++g) finish_group(sums[g][0], R, c + g * kGroup, row_scale, m, residual, y);
  }

  static __m512 dequantized(__m512i sum, float row_scale, __m512 scale) {
    return _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(row_scale)), scale);
  }

  // sums [rows, 16], of columns c to c + 15
  __attribute__((noinline)) void finish_group(const int32_t* sums, int rows, int64_t c, const float* row_scale, int64_t m,
                                              const float* residual, float* y) const {
    const __m512 scale = _mm512_load_ps(stream_.scale.get() + c), bias = _mm512_load_ps(stream_.bias.get() + c);
    const __mmask16 inside = first_lanes(n_ - c);
    alignas(64) float waiting[kRows * kGroup];
    for (int r = 0; r < rows; ++r) {
      const __m512 v = dequantized(_mm512_load_si512(sums + r * kGroup), row_scale[r], scale);
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

  // The last pair may have one group only.
  template <int R>
  void tiles(int64_t first, int64_t end, const QuantizedRows& in, int64_t m, int64_t last, const float* residual,
             float* y) const {
    const int64_t whole = std::min(end, (n_ + kGroup - 1) / kPair);
    tiles<R, 2>(first, whole, in, m, last, residual, y);
    if (whole < end) tiles<R, 1>(whole, end, in, m, last, residual, y);
  }

  Int8Stream stream_;
  int64_t k_, n_;
  Activation activation_;
};

}  // namespace

std::unique_ptr<Int8Product> int8_permute_avx512_vbmi(const Weights<int8_t>& w, Epilogue epilogue) {
  return std::make_unique<Int8Permute>(w, epilogue);
}

}  // namespace sparsify
