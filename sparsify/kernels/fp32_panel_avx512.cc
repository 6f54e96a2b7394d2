// Float W over transposed panels of tokens, for AVX-512.
//
// Lanes are 16 rows of X (tokens). A panel of up to 64 rows is transposed once, so that one non-zero w[k, c] is
//
//   vbroadcastss b = w; four times  vfmadd231ps acc[r] += b * panel[k][16 r]     the panel is a memory operand
//
// one load a product of 16: FMA and load ports are both full (one zmm load a cycle on Zen 4, two on Zen 5).
// Nothing is padded, so unstructured weights cost what their non-zeros cost.
//
// Cache: K is walked in blocks of 128 (128 * 64 * 4 bytes = 32 KB: L1), or of 256 where few non-zeros would not pay for
// taking up a column so often; columns in chunks of 64 whose partial sums (64 * 64 * 4 = 16 KB) wait on the stack.
// W is packed in that order: chunk, block, column, non-zero. Within a chunk and block the columns go by their number of
// non-zeros: the loop over these ends unforeseen once for each number, not once for each column (a mispredicted branch
// costs about as much as 5 non-zeros, and 10 %-dense columns have 13 in a block of 128).
// Rounding: one FMA a non-zero, and at most 3 sums a block: |error| <= (nnz + 3 K/128 + 1) u sum |x w|, u = 2^-24;
// with few rows the non-zeros of a block are dealt to several chains of FMAs, which only shortens each.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "contract.h"
#include "epilogue-inl.h"
#include "scratch.h"
#include "vector_avx512.h"

namespace sparsify {
namespace {

constexpr int64_t kPanel = 64;   // tokens
constexpr int64_t kChunk = 64;   // columns

// Inputs of a block. Of 64, 128, 192 and 256, the fastest at densities of 5 to 30 % (Zen 4).
int64_t block_for(const Csc<float>& w) {
  const double density = static_cast<double>(w.nnz()) / static_cast<double>(w.k) / static_cast<double>(w.n);
  return density < 0.12 ? 256 : 128;
}

// out[j][i] = in[i][j] for a 16 x 16 tile in registers (4 rounds of 16 shuffles).
inline void transpose(__m512 (&v)[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  }
  const auto lo = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto hi = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  for (int i = 0; i < 16; i += 4) {
    v[i] = lo(t[i], t[i + 2]);
    v[i + 1] = hi(t[i], t[i + 2]);
    v[i + 2] = lo(t[i + 1], t[i + 3]);
    v[i + 3] = hi(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(v[i], v[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(v[i], v[i + 4], 0xDD);
    t[i + 8] = _mm512_shuffle_f32x4(v[i + 8], v[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(v[i + 8], v[i + 12], 0xDD);
  }
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    v[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xDD);
    v[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    v[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xDD);
  }
}

// Rows [0, rows) of x [rows, k] to panel [k][lanes]; lanes is rows rounded up to 16, the rest zeros.
// poison [lanes]: 0, or NaN for a row with a NaN or an infinity, which a dense product would meet as 0 * infinity.
void fill_panel(const float* x, int64_t k, int64_t rows, int64_t lanes, float* panel, float* poison) {
  for (int64_t m = 0; m < lanes; m += 16) {
    __m512 bad = _mm512_setzero_ps();
    for (int64_t i = 0; i < k; i += 16) {
      __m512 v[16];
      for (int r = 0; r < 16; ++r) {
        const bool inside = m + r < rows;
        v[r] = inside ? _mm512_maskz_loadu_ps(first_lanes(k - i), x + (m + r) * k + i) : _mm512_setzero_ps();
      }
      transpose(v);
      for (int64_t j = 0; j < std::min<int64_t>(16, k - i); ++j) {
        _mm512_store_ps(panel + (i + j) * lanes + m, v[j]);
        bad = _mm512_fmadd_ps(v[j], _mm512_setzero_ps(), bad);
      }
    }
    _mm512_store_ps(poison + m, bad);
  }
}

// acc[r] += w * x[16 r]: one non-zero for R * 16 tokens.
template <int R>
inline void multiply_add(float w, const float* x, __m512 (&acc)[R]) {
  const __m512 all = _mm512_set1_ps(w);
  for (int r = 0; r < R; ++r) acc[r] = _mm512_fmadd_ps(_mm512_load_ps(x + 16 * r), all, acc[r]);
}

// The non-zeros of one column in one block.
struct Run {
  uint16_t column;  // in its chunk
  uint16_t count;
};

class Fp32Panel final : public Product {
 public:
  Fp32Panel(const Csc<float>& w, Epilogue epilogue)
      : k_(w.k),
        n_(w.n),
        block_(block_for(w)),
        blocks_((w.k + block_ - 1) / block_),
        chunks_((w.n + kChunk - 1) / kChunk),
        epilogue_(std::move(epilogue)) {
    epilogue_.bias.resize(static_cast<size_t>(chunks_ * kChunk));
    pack(w);
  }

  void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const override {
    const int64_t panels = (rows + kPanel - 1) / kPanel;
    const int64_t size = (k_ + 1) * kPanel;  // floats of a panel and its poison
    auto* panel = reinterpret_cast<float*>(scratch(panels * size * 4));
    const auto rows_of = [&](int64_t p) { return std::min(kPanel, rows - p * kPanel); };
    pool.each(panels, [&](int64_t p) {
      float* at = panel + p * size;
      fill_panel(x + p * kPanel * k_, k_, rows_of(p), round_up(rows_of(p), 16), at + kPanel, at);
    });
    // A task is all panels of one chunk: its weights stay in cache.
    pool.each(chunks_, [&](int64_t chunk) {
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t at = p * kPanel * n_;
        multiply(chunk, panel + p * size, rows_of(p), residual == nullptr ? nullptr : residual + at, y + at);
      }
    });
  }

  int64_t bytes() const override { return nnz_ * 5 + static_cast<int64_t>(run_.size() * sizeof(Run)); }

 private:
  void pack(const Csc<float>& w) {
    nnz_ = w.nnz();
    value_ = aligned<float>(nnz_);
    row_ = aligned<uint8_t>(nnz_);
    run_.resize(static_cast<size_t>(chunks_ * blocks_ * kChunk));
    offset_.assign(static_cast<size_t>(chunks_) + 1, 0);
    std::vector<int64_t> next(w.start.begin(), w.start.end());
    int64_t at = 0;
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      for (int64_t block = 0; block < blocks_; ++block) {
        Run* runs = run_.data() + (chunk * blocks_ + block) * kChunk;
        count_runs(w, next, chunk, (block + 1) * block_, runs);
        for (int64_t c = 0; c < kChunk; ++c) {
          const int64_t column = chunk * kChunk + runs[c].column;
          for (int i = 0; i < runs[c].count; ++i, ++at) {
            row_[at] = static_cast<uint8_t>(w.row[next[column]] - block * block_);
            value_[at] = w.value[next[column]++];
          }
        }
      }
      offset_[chunk + 1] = at;
    }
  }

  // The columns of a chunk with their non-zeros below row `end` from `next` on, fewest first.
  void count_runs(const Csc<float>& w, const std::vector<int64_t>& next, int64_t chunk, int64_t end, Run* runs) const {
    for (int64_t c = 0; c < kChunk; ++c) {
      const int64_t column = chunk * kChunk + c;
      int64_t last = column < n_ ? next[column] : 0;
      const int64_t first = last;
      while (column < n_ && last < w.start[column + 1] && w.row[last] < end) ++last;
      runs[c] = {static_cast<uint16_t>(c), static_cast<uint16_t>(last - first)};
    }
    std::stable_sort(runs, runs + kChunk, [](const Run& a, const Run& b) { return a.count < b.count; });
  }

  // One chunk of columns for one panel of R * 16 lanes: partial sums, transposed back, epilogue.
  template <int R>
  void multiply(int64_t chunk, const float* poison, int64_t rows, const float* residual, float* y) const {
    constexpr int kChains = 4 / R;  // an FMA takes 4 cycles, one starts each: fewer than 4 in flight would wait
    const float* panel = poison + kPanel;
    alignas(64) float sum[kChunk][16 * R];
    for (auto& column : sum) std::memcpy(column, poison, sizeof column);
    const float* value = value_.get() + offset_[chunk];
    const uint8_t* row = row_.get() + offset_[chunk];
    const Run* run = run_.data() + chunk * blocks_ * kChunk;
    for (int64_t block = 0; block < blocks_; ++block, panel += block_ * 16 * R) {
      for (int64_t visit = 0; visit < kChunk; ++visit, ++run) {
        const int c = run->column, nnz = run->count;
        __m512 acc[kChains][R];
        for (int r = 0; r < R; ++r) acc[0][r] = _mm512_load_ps(sum[c] + 16 * r);
        for (int u = 1; u < kChains; ++u) {
          for (int r = 0; r < R; ++r) acc[u][r] = _mm512_setzero_ps();
        }
        int i = 0;
        for (; i + kChains <= nnz; i += kChains) {
          for (int u = 0; u < kChains; ++u) multiply_add<R>(value[i + u], panel + row[i + u] * int64_t{16 * R}, acc[u]);
        }
        for (; i < nnz; ++i) multiply_add<R>(value[i], panel + row[i] * int64_t{16 * R}, acc[0]);
        for (int u = 1; u < kChains; ++u) {
          for (int r = 0; r < R; ++r) acc[0][r] = _mm512_add_ps(acc[0][r], acc[u][r]);
        }
        value += nnz;
        row += nnz;
        for (int r = 0; r < R; ++r) _mm512_store_ps(sum[c] + 16 * r, acc[0][r]);
      }
    }
    const int64_t columns = std::min(kChunk, n_ - chunk * kChunk);
    for (int64_t c = 0; c < columns; c += 16) {
      const __m512 bias = _mm512_loadu_ps(epilogue_.bias.data() + chunk * kChunk + c);
      for (int64_t m = 0; m < rows; m += 16) {
        __m512 v[16];
        for (int i = 0; i < 16; ++i) v[i] = _mm512_load_ps(sum[c + i] + m);
        transpose(v);
        for (int64_t i = 0; i < std::min<int64_t>(16, rows - m); ++i) {
          const int64_t at = (m + i) * n_ + chunk * kChunk + c;
          const __mmask16 inside = first_lanes(columns - c);
          __m512 out = activate<Avx512Lanes>(_mm512_add_ps(v[i], bias), epilogue_.activation);
          if (residual != nullptr) out = _mm512_add_ps(out, _mm512_maskz_loadu_ps(inside, residual + at));
          _mm512_mask_storeu_ps(y + at, inside, out);
        }
      }
    }
  }

  void multiply(int64_t chunk, const float* panel, int64_t rows, const float* residual, float* y) const {
    switch ((rows + 15) / 16) {
      case 1: return multiply<1>(chunk, panel, rows, residual, y);
      case 2: return multiply<2>(chunk, panel, rows, residual, y);
      case 3: return multiply<3>(chunk, panel, rows, residual, y);
      default: return multiply<4>(chunk, panel, rows, residual, y);
    }
  }

  int64_t k_, n_, block_, blocks_, chunks_, nnz_ = 0;
  Epilogue epilogue_;             // bias padded to [chunks * 64]
  Aligned<float> value_;          // [nnz] in order of chunk, block, column, k
  Aligned<uint8_t> row_;          // [nnz] k within its block
  std::vector<Run> run_;          // [chunks, blocks, 64]
  std::vector<int64_t> offset_;   // [chunks + 1] into value_ and row_
};

}  // namespace

std::unique_ptr<Product> fp32_panel_avx512(const Csc<float>& w, Epilogue epilogue) {
  return std::make_unique<Fp32Panel>(w, std::move(epilogue));
}

}  // namespace sparsify
