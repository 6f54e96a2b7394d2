#include "panel_weights.h"

#include <algorithm>

namespace sparsify {
namespace {

using Run = PanelWeights::Run;

// Inputs of a block: of 64, 128, 192 and 256 the fastest at densities of 5 to 30 %, for fp32_panel_avx512 on Zen 4.
template <class T>
int64_t block_for(const Csc<T>& w) {
  const double density = static_cast<double>(w.nnz()) / static_cast<double>(w.k) / static_cast<double>(w.n);
  return density < 0.12 ? 256 : 128;
}

// The columns of a chunk with their non-zeros below row `end` from `next` on, fewest first.
template <class T>
void count_runs(const Csc<T>& w, const std::vector<int64_t>& next, int64_t chunk, int64_t end, Run* runs) {
  for (int64_t c = 0; c < PanelWeights::kChunk; ++c) {
    const int64_t column = chunk * PanelWeights::kChunk + c;
    int64_t count = 0;
    if (column < w.n) {
      while (next[column] + count < w.start[column + 1] && w.row[next[column] + count] < end) ++count;
    }
    runs[c] = {static_cast<uint16_t>(c), static_cast<uint16_t>(count)};
  }
  std::stable_sort(runs, runs + PanelWeights::kChunk, [](Run a, Run b) { return a.count < b.count; });
}

}  // namespace

template <class T>
PanelWeights pack_panel(const Csc<T>& w, const Epilogue& epilogue) {
  constexpr int64_t kChunk = PanelWeights::kChunk;
  PanelWeights out;
  out.k = w.k;
  out.n = w.n;
  out.nnz = w.nnz();
  out.block = block_for(w);
  out.blocks = (w.k + out.block - 1) / out.block;
  out.chunks = (w.n + kChunk - 1) / kChunk;
  out.value = aligned<float>(out.nnz);
  out.row = aligned<uint8_t>(out.nnz);
  out.run = aligned<Run>(out.chunks * out.blocks * kChunk);
  out.offset.assign(static_cast<size_t>(out.chunks) + 1, 0);
  out.scale = epilogue.scale;
  out.bias = epilogue.bias;
  out.scale.resize(static_cast<size_t>(out.chunks * kChunk));
  out.bias.resize(static_cast<size_t>(out.chunks * kChunk));

  std::vector<int64_t> next(w.start.begin(), w.start.end());
  int64_t at = 0;
  for (int64_t chunk = 0; chunk < out.chunks; ++chunk) {
    for (int64_t block = 0; block < out.blocks; ++block) {
      Run* runs = out.run.get() + (chunk * out.blocks + block) * kChunk;
      count_runs(w, next, chunk, (block + 1) * out.block, runs);
      for (int64_t c = 0; c < kChunk; ++c) {
        if (runs[c].count == 0) continue;
        int64_t& from = next[chunk * kChunk + runs[c].column];
        for (int i = 0; i < runs[c].count; ++i, ++at, ++from) {
          out.row[at] = static_cast<uint8_t>(w.row[from] - block * out.block);
          out.value[at] = static_cast<float>(w.value[from]);
        }
      }
    }
    out.offset[chunk + 1] = at;
  }
  return out;
}

template PanelWeights pack_panel<float>(const Csc<float>&, const Epilogue&);
template PanelWeights pack_panel<int8_t>(const Csc<int8_t>&, const Epilogue&);

}  // namespace sparsify
