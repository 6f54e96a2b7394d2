// int8 W by register permutes, for AVX-512 with VBMI and VNNI.
//
// Lanes are 16 output columns, a column group. A block of 64 inputs of one quantised row is one zmm register x.
// One step serves 4 non-zeros of each column of the group:
//
//   vpermb     t = x[positions]                 64 stored 6-bit positions; Zen 4 ports FP1/FP2, Zen 5 two a cycle
//   vpdpbusd   acc += t (u8) * weights (s8)     4 products a lane, no saturation; Zen 4 FP0/FP1
//
// A tile is 8 rows by 2 groups: 16 accumulators; one load of x feeds both groups, one load of weights 8 rows.
// A block with a column of more than 44 non-zeros takes 16 plain steps instead, without positions (kDense):
// a step with its permute costs 1.35 plain ones (measured on Zen 4), so 12 steps are the break-even.
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
#include "quantize_avx512.h"
#include "scratch.h"
#include "vector_avx512.h"

namespace sparsify {
namespace {

constexpr int64_t kBlock = 64;         // inputs: bytes of a zmm register
constexpr int64_t kGroup = 16;         // columns: int32 lanes of a zmm register
constexpr int64_t kPair = 2 * kGroup;  // columns of a tile
constexpr int64_t kRows = 8;           // rows of a tile
constexpr uint8_t kDense = 16;         // steps of a block without positions
constexpr int64_t kDenseFrom = 12;     // steps with positions from which plain ones are faster
constexpr int64_t kTaskRows = 128;
constexpr int64_t kTaskBytes = 128 << 10;  // weights: with the rows and outputs of a task, in half an L2 of 1 MB

// acc[g][r] += rows r of q times group g, over all blocks. `w` is this tile's stream.
template <int R, int G>
inline void accumulate(const uint8_t* steps, int64_t blocks, const uint8_t* w, const uint8_t* q, int64_t stride,
                       __m512i (&acc)[G][R]) {
  for (int64_t b = 0; b < blocks; ++b, q += kBlock) {
    const int count = steps[b];
    if (count == kDense) {
      for (int i = 0; i < kDense; ++i, w += 64 * G) {
        for (int r = 0; r < R; ++r) {
          int32_t four;
          std::memcpy(&four, q + r * stride + 4 * i, 4);
          for (int g = 0; g < G; ++g) {
            acc[g][r] = _mm512_dpbusd_epi32(acc[g][r], _mm512_set1_epi32(four), _mm512_load_si512(w + 64 * g));
          }
        }
      }
      continue;
    }
    for (int i = 0; i < count; ++i, w += 128 * G) {
      __m512i position[G], weight[G];
      for (int g = 0; g < G; ++g) {
        position[g] = _mm512_load_si512(w + 128 * g);
        weight[g] = _mm512_load_si512(w + 128 * g + 64);
      }
      for (int r = 0; r < R; ++r) {
        const __m512i x = _mm512_load_si512(q + r * stride);
        for (int g = 0; g < G; ++g) {
          acc[g][r] = _mm512_dpbusd_epi32(acc[g][r], _mm512_permutexvar_epi8(position[g], x), weight[g]);
        }
      }
    }
  }
}

class Int8Permute final : public Product {
 public:
  Int8Permute(const Csc<int8_t>& w, Epilogue epilogue)
      : k_(w.k),
        n_(w.n),
        blocks_((w.k + kBlock - 1) / kBlock),
        pairs_((w.n + kPair - 1) / kPair),
        activation_(epilogue.activation),
        least_(_mm512_set1_ps(activation_ == Activation::kRelu ? 0.0f : -std::numeric_limits<float>::infinity())),
        scale_(padded(epilogue.scale)),
        bias_(padded(epilogue.bias)) {
    std::vector<int32_t> sums(static_cast<size_t>(n_));
    for (int64_t c = 0; c < n_; ++c) {
      for (int64_t i = w.start[c]; i < w.start[c + 1]; ++i) sums[c] += w.value[i];
    }
    column_sum_ = padded(sums);
    count_steps(w);
    fill_stream(w);
  }

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    const QuantizedRows quantized(rows, k_);
    quantize(x, rows, quantized, pool);

    // A task is a block of rows times a chunk of pairs whose weights stay in L2 while all its rows go over them.
    const int64_t row_blocks = (rows + kTaskRows - 1) / kTaskRows;
    const int64_t pairs = std::clamp<int64_t>(kTaskBytes * pairs_ / std::max<int64_t>(stream_size_, 1), 1, pairs_);
    const int64_t chunks = (pairs_ + pairs - 1) / pairs;
    pool.each(row_blocks * chunks, [&](int64_t task) {
      const int64_t first = task / chunks * kTaskRows, last = std::min(first + kTaskRows, rows);
      const int64_t pair = task % chunks * pairs, end = std::min(pair + pairs, pairs_);
      for (int64_t m = first; m < last; m += kRows) {
        for (int64_t p = pair; p < end; ++p) tile(p, quantized, m, std::min(kRows, last - m), residual, y);
      }
    });
  }

  int64_t bytes() const override { return stream_size_ + blocks_ * pairs_ + 12 * pairs_ * kPair; }

 private:
  template <class T>
  Aligned<T> padded(const std::vector<T>& values) const {
    auto out = aligned<T>(pairs_ * kPair);
    std::fill(out.get(), out.get() + pairs_ * kPair, T(0));
    std::copy(values.begin(), values.end(), out.get());
    return out;
  }

  int groups(int64_t pair) const { return n_ - pair * kPair > kGroup ? 2 : 1; }

  // Calls visit(column, block, first non-zero, one past the last) for every column and block.
  template <class Visit>
  void each_block(const Csc<int8_t>& w, Visit visit) const {
    for (int64_t c = 0; c < n_; ++c) {
      int64_t i = w.start[c];
      while (i < w.start[c + 1]) {
        const int64_t block = w.row[i] / kBlock, first = i;
        while (i < w.start[c + 1] && w.row[i] / kBlock == block) ++i;
        visit(c, block, first, i);
      }
    }
  }

  void count_steps(const Csc<int8_t>& w) {
    steps_.assign(static_cast<size_t>(pairs_ * blocks_), 0);
    each_block(w, [&](int64_t c, int64_t block, int64_t first, int64_t last) {
      uint8_t& steps = steps_[c / kPair * blocks_ + block];
      const int64_t needed = (last - first + 3) / 4;
      steps = static_cast<uint8_t>(std::max<int64_t>(steps, needed >= kDenseFrom ? kDense : needed));
    });
    offset_.assign(static_cast<size_t>(pairs_ * blocks_) + 1, 0);
    for (int64_t i = 0; i < pairs_ * blocks_; ++i) {
      offset_[i + 1] = offset_[i] + steps_[i] * groups(i / blocks_) * (steps_[i] == kDense ? 64 : 128);
    }
    stream_size_ = offset_.back();
  }

  void fill_stream(const Csc<int8_t>& w) {
    stream_ = aligned<uint8_t>(stream_size_);
    std::memset(stream_.get(), 0, static_cast<size_t>(stream_size_));
    each_block(w, [&](int64_t c, int64_t block, int64_t first, int64_t last) {
      const int64_t pair = c / kPair, lane = c % kGroup, group = c / kGroup % 2, g = groups(pair);
      const bool dense = steps_[pair * blocks_ + block] == kDense;
      uint8_t* base = stream_.get() + offset_[pair * blocks_ + block];
      for (int64_t i = first; i < last; ++i) {
        const auto position = static_cast<uint8_t>(w.row[i] % kBlock);
        const int64_t slot = dense ? position : i - first;
        uint8_t* step = base + slot / 4 * g * (dense ? 64 : 128) + group * (dense ? 64 : 128);
        const int64_t byte = lane * 4 + slot % 4;
        if (!dense) step[byte] = position;
        step[byte + (dense ? 0 : 64)] = static_cast<uint8_t>(w.value[i]);
      }
    });
  }

  void quantize(const float* x, int64_t rows, const QuantizedRows& out, const Pool& pool) const {
    const int64_t chunk = std::max<int64_t>(1, (32 << 10) / k_);  // rows: about 8 us of two passes at 4 values/ns
    pool.each((rows + chunk - 1) / chunk, [&](int64_t task) {
      for (int64_t m = task * chunk; m < std::min((task + 1) * chunk, rows); ++m) {
        const RowScale row = row_scale(range_avx512(x + m * k_, k_));
        fill_avx512(x + m * k_, k_, out.stride, row, out.q + m * out.stride);
        out.scale[m] = row.scale;
        out.zero_point[m] = row.zero_point;
      }
    });
  }

  template <int R, int G>
  void tile(int64_t pair, const QuantizedRows& in, int64_t m, const float* residual, float* y) const {
    __m512i acc[G][R];
    for (auto& group : acc) {
      for (auto& row : group) row = _mm512_setzero_si512();
    }
    accumulate<R, G>(steps_.data() + pair * blocks_, blocks_, stream_.get() + offset_[pair * blocks_],
                     in.q + m * in.stride, in.stride, acc);
    finish<R, G>(acc, pair * kPair, in, m, residual, y);
  }

  // Dequantise, bias, activation, store: acc[g][r] is row m + r, columns c + 16 g. Unrolled, so that acc never leaves
  // its registers; what is longer than Relu goes over what was stored, which is still in L1, and so does a residual.
  template <int R, int G>
  void finish(const __m512i (&acc)[G][R], int64_t c, const QuantizedRows& in, int64_t m, const float* residual,
              float* y) const {
    const bool longer = activation_ != Activation::kNone && activation_ != Activation::kRelu;
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g, c += kGroup) {
      const __m512i sum = _mm512_load_si512(column_sum_.get() + c);
      const __m512 scale = _mm512_load_ps(scale_.get() + c), bias = _mm512_load_ps(bias_.get() + c);
      const __mmask16 inside = first_lanes(n_ - c);
      float* out = y + m * n_ + c;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i shift = _mm512_mullo_epi32(sum, _mm512_set1_epi32(in.zero_point[m + r]));
        const __m512 total = _mm512_cvtepi32_ps(_mm512_sub_epi32(acc[g][r], shift));
        const __m512 v = _mm512_mul_ps(_mm512_mul_ps(total, _mm512_set1_ps(in.scale[m + r])), scale);
        _mm512_mask_storeu_ps(out + r * n_, inside, _mm512_max_ps(least_, _mm512_add_ps(v, bias)));
      }
      if (!longer && residual == nullptr) continue;
      for (int r = 0; r < R; ++r) {
        __m512 v = _mm512_maskz_loadu_ps(inside, out + r * n_);
        if (longer) v = activate<Avx512Lanes>(v, activation_);
        if (residual != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(inside, residual + (m + r) * n_ + c));
        _mm512_mask_storeu_ps(out + r * n_, inside, v);
      }
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

  int64_t k_, n_, blocks_, pairs_;
  Activation activation_;
  __m512 least_;                    // 0 for Relu, else minus infinity; max(least, NaN) is NaN
  Aligned<float> scale_, bias_;     // [pairs * 32]
  Aligned<int32_t> column_sum_;     // [pairs * 32]
  std::vector<uint8_t> steps_;      // [pairs, blocks]: 0 to 11 with positions, or kDense
  std::vector<int64_t> offset_;     // [pairs * blocks + 1] into stream_
  Aligned<uint8_t> stream_;         // a step: G times {positions [64], weights [64]}; dense: G times weights [64]
  int64_t stream_size_ = 0;         // bytes
};

}  // namespace

std::unique_ptr<Product> int8_permute_avx512_vbmi(const Csc<int8_t>& w, Epilogue epilogue) {
  return std::make_unique<Int8Permute>(w, std::move(epilogue));
}

}  // namespace sparsify
