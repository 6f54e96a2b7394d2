#include "panel_weights.h"

#include <algorithm>

namespace sparsify {

template <class T>
PanelWeights pack_panel(const Csc<T>& w, const Epilogue& epilogue) {
  constexpr int64_t kBlock = PanelWeights::kBlock, kChunk = PanelWeights::kChunk;
  PanelWeights out;
  out.k = w.k;
  out.n = w.n;
  out.nnz = w.nnz();
  out.blocks = (w.k + kBlock - 1) / kBlock;
  out.chunks = (w.n + kChunk - 1) / kChunk;
  out.value = aligned<float>(out.nnz);
  out.row = aligned<uint8_t>(out.nnz);
  out.count.assign(static_cast<size_t>(out.chunks * out.blocks * kChunk), 0);
  out.offset.assign(static_cast<size_t>(out.chunks) + 1, 0);
  out.scale = epilogue.scale;
  out.bias = epilogue.bias;
  out.scale.resize(static_cast<size_t>(out.chunks * kChunk));
  out.bias.resize(static_cast<size_t>(out.chunks * kChunk));

  std::vector<int64_t> next(w.start.begin(), w.start.end());
  int64_t at = 0;
  for (int64_t chunk = 0; chunk < out.chunks; ++chunk) {
    for (int64_t block = 0; block < out.blocks; ++block) {
      for (int64_t c = chunk * kChunk; c < std::min((chunk + 1) * kChunk, w.n); ++c) {
        const int64_t first = next[c];
        for (; next[c] < w.start[c + 1] && w.row[next[c]] < (block + 1) * kBlock; ++next[c], ++at) {
          out.row[at] = static_cast<uint8_t>(w.row[next[c]] - block * kBlock);
          out.value[at] = static_cast<float>(w.value[next[c]]);
        }
        out.count[(chunk * out.blocks + block) * kChunk + c % kChunk] = static_cast<uint8_t>(next[c] - first);
      }
    }
    out.offset[chunk + 1] = at;
  }
  return out;
}

template PanelWeights pack_panel<float>(const Csc<float>&, const Epilogue&);
template PanelWeights pack_panel<int8_t>(const Csc<int8_t>&, const Epilogue&);

}  // namespace sparsify
