// Quantising rows of activations, one body for every vector type V: one pass for the range, one to quantise.
#pragma once

#include <algorithm>

#include "contract.h"
#include "quantize.h"
#include "tasks.h"

namespace sparsify {

template <class V>
struct RangeLanes {
  typename V::Float low = V::set(0.0f), high = V::set(0.0f), poison = V::set(0.0f);

  void see(typename V::Float v) {
    low = V::min(low, v);
    high = V::max(high, v);
    poison = V::fma(v, V::set(0.0f), poison);
  }
  void join(const RangeLanes& other) {
    low = V::min(low, other.low);
    high = V::max(high, other.high);
    poison = V::add(poison, other.poison);
  }
};

template <class V>
inline RowRange range_of(const float* x, int64_t k) {
  RangeLanes<V> part[4];  // min, max and FMA take 2 to 4 cycles and start every cycle or half: four chains
  int64_t i = 0;
  for (; i + 4 * V::kLanes <= k; i += 4 * V::kLanes) {
    for (int j = 0; j < 4; ++j) part[j].see(V::load(x + i + j * V::kLanes));
  }
  for (; i < k; i += V::kLanes) part[0].see(V::load_first(x + i, k - i));
  for (int j = 1; j < 4; ++j) part[0].join(part[j]);
  float low[V::kLanes], high[V::kLanes], poison[V::kLanes];
  V::store(low, part[0].low);
  V::store(high, part[0].high);
  V::store(poison, part[0].poison);
  RowRange range{0.0f, 0.0f, 0.0f};
  for (int lane = 0; lane < V::kLanes; ++lane) {
    range.low = std::min(range.low, low[lane]);
    range.high = std::max(range.high, high[lane]);
    range.poison += poison[lane];
  }
  return range;
}

// Writes `width` bytes, K or a multiple of 64: clip(round(x inverse) + z, 0, 255), and behind K whatever zeros become,
// which only meets weights of zero. kSigned: z is that of s8, and the bytes are clip(round(x inverse) + z, -128, 127).
template <class V, bool kSigned>
inline void fill(const float* x, int64_t k, int64_t width, const RowScale& row, uint8_t* q) {
  const auto inverse = V::set(row.inverse);
  const auto zero_point = V::set_int(row.zero_point);
  const auto put = [&](uint8_t* to, typename V::Float v) {
    const auto shifted = V::add(V::to_int(V::mul(v, inverse)), zero_point);
    if constexpr (kSigned) {
      V::store_signed_bytes(to, shifted);
    } else {
      V::store_bytes(to, shifted);
    }
  };
  int64_t i = 0;
  for (; i + V::kLanes <= k; i += V::kLanes) put(q + i, V::load(x + i));
  if (i < k) {
    uint8_t last[V::kLanes];
    put(last, V::load_first(x + i, k - i));
    std::memcpy(q + i, last, static_cast<size_t>(std::min<int64_t>(V::kLanes, width - i)));
    i += V::kLanes;
  }
  for (; i < width; i += V::kLanes) put(q + i, V::set(0.0f));
}

// Row m of x. kSigned: as in take_row.
template <class V, bool kSigned>
void quantize_row(const float* x, int64_t m, int64_t k, const QuantizedRoom& out) {
  RowScale row = row_scale(range_of<V>(x + m * k, k));
  if (kSigned) row.zero_point -= 128;
  fill<V, kSigned>(x + m * k, k, out.width, row, out.q + m * out.stride);
  out.scale[m] = row.scale;
  out.zero_point[m] = row.zero_point;
}

// A kernel of its own, see `Quantize` in contract.h.
template <class V>
void quantize(const float* x, int64_t rows, int64_t k, uint8_t* q, float* scale, uint8_t* zero_point, const Pool& pool) {
  const int64_t some = rows_of_task(k);
  pool.each((rows + some - 1) / some, [&](int64_t task) {
    for (int64_t m = task * some; m < std::min((task + 1) * some, rows); ++m) {
      const RowScale row = row_scale(range_of<V>(x + m * k, k));
      fill<V, false>(x + m * k, k, k, row, q + m * k);
      scale[m] = row.scale;
      zero_point[m] = static_cast<uint8_t>(row.zero_point);
    }
  });
}

}  // namespace sparsify
