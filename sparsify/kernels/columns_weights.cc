#include "columns_weights.h"

#include <algorithm>

namespace sparsify {
namespace {

using Task = ColumnsWeights::Task;

// Cuts the stream of weights into tasks while the columns go by in order.
class Cutter {
 public:
  Cutter(ColumnsWeights* out, int64_t most) : out_(out), most_(most) {}

  // The column `c` has the weights [from, to).
  void column(int64_t c, int64_t from, int64_t to) {
    if (to - from > most_) return split(c, from, to);
    if (to - start_ > most_ || c - first_ >= kMostColumns) flush(c, from);
    out_->end[c] = static_cast<uint16_t>(to - start_);
    end_ = to;
  }

  void finish() { flush(out_->n, end_); }

 private:
  static constexpr int64_t kMostColumns = 16384;  // of a task: empty ones take time as well

  void flush(int64_t next_column, int64_t next_start) {
    if (next_column > first_) {
      out_->tasks.push_back({start_, -1, static_cast<int32_t>(first_), static_cast<int32_t>(next_column),
                             static_cast<int32_t>(next_start - start_)});
    }
    first_ = next_column;
    start_ = next_start;
  }

  void split(int64_t c, int64_t from, int64_t to) {
    flush(c, from);
    const int64_t parts = (to - from + most_ - 1) / most_;
    out_->splits.push_back({c, out_->partials, parts});
    for (int64_t p = 0; p < parts; ++p) {
      const int64_t at = from + p * most_, count = std::min(most_, to - at);
      const auto column = static_cast<int32_t>(c);
      out_->tasks.push_back({at, out_->partials++, column, column + 1, static_cast<int32_t>(count)});
    }
    out_->end[c] = 0;
    first_ = c + 1;
    start_ = end_ = to;
  }

  ColumnsWeights* out_;
  int64_t most_, first_ = 0, start_ = 0, end_ = 0;
};

template <class Low, class Row>
bool unpack(const Encoded& in, ColumnsWeights* out) {
  constexpr int64_t kStride = int64_t{1} << 24;  // weights between hints
  const auto* low = static_cast<const Low*>(in.positions);
  auto* rows = reinterpret_cast<Row*>(out->row.get());
  // Enough tasks for threads to share even where weights are few.
  Cutter cutter(out, std::clamp<int64_t>(in.count / 64, 2048, ColumnsWeights::kMostInTask));
  int64_t row = -1, column = 0, from = 0, released = 0;
  const bool wide = in.high_count == in.count;
  for (int64_t i = 0; i < in.count; ++i) {
    const int64_t gap = low[i] + (wide ? int64_t{in.high[i]} << 16 : 0);
    if (gap < 1) return false;
    row += gap;
    if (row >= in.k) {
      const int64_t next = column + row / in.k;
      if (next >= in.n) return false;
      row %= in.k;
      for (; column < next; ++column, from = i) cutter.column(column, from, i);
    }
    rows[i] = static_cast<Row>(row);
    if (i - released == kStride) {
      let_go(low + released, kStride * static_cast<int64_t>(sizeof(Low)));
      if (wide) let_go(in.high + released, kStride);
      released = i;
    }
  }
  for (; column < in.n; ++column, from = in.count) cutter.column(column, from, in.count);
  cutter.finish();
  return true;
}

template <class Low>
bool unpack(const Encoded& in, ColumnsWeights* out) {
  return out->near ? unpack<Low, uint16_t>(in, out) : unpack<Low, uint32_t>(in, out);
}

}  // namespace

std::string pack_columns(const Encoded& in, Epilogue epilogue, ColumnsWeights* out) {
  if (in.encoding != Encoding::kColumns) return "the positions are not gaps of columns";
  if (std::string wrong = wrong_shape(in); !wrong.empty()) return wrong;
  if (in.position_count != in.count || (in.high_count != 1 && in.high_count != in.count)) {
    return "the gaps number " + std::to_string(in.position_count) + " and their high parts " +
           std::to_string(in.high_count) + ", expected " + std::to_string(in.count);
  }
  if (in.gap_type == GapType::kInt32) return "the gaps are int32, expected uint8 or uint16";
  if (in.high_count != in.count && in.high[0] != 0) return "the high part of all gaps is not 0";
  out->k = in.k;
  out->n = in.n;
  out->count = in.count;
  out->value = static_cast<const float*>(in.values);
  out->near = in.k <= 65536;
  out->row = aligned<uint8_t>(in.count * (out->near ? 2 : 4));
  out->end = aligned<uint16_t>(in.n);
  out->epilogue = std::move(epilogue);
  const bool inside = in.gap_type == GapType::kUint8 ? unpack<uint8_t>(in, out) : unpack<uint16_t>(in, out);
  return inside ? "" : "positions and values do not describe a matrix of this shape";
}

}  // namespace sparsify
