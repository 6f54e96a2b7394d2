// Encodings as a file may bring them: each is either refused, or decodes to positions inside the matrix that every
// kernel multiplies without leaving its memory (which a sanitizer checks).
#include <cstring>
#include <memory>

#include "columns_weights.h"
#include "driver.h"
#include "weights.h"

namespace sparsify {
namespace {

int nearly_dense = 0;  // encodings that were packed as they stand

// Buffers exactly as long as they claim to be, on the heap: reading past one is an error that a sanitizer sees.
struct Buffer {
  std::unique_ptr<uint8_t[]> bytes;

  Buffer(Random& random, int64_t size, int64_t largest) : bytes(new uint8_t[static_cast<size_t>(size)]) {
    for (int64_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(below(random, largest + 1));
  }
};

template <class T>
bool inside(const Csc<T>& w) {
  bool right = w.start.size() == static_cast<size_t>(w.n) + 1 && w.start.front() == 0 && w.start.back() == w.nnz() &&
               w.value.size() == w.row.size();
  for (int64_t c = 0; right && c < w.n; ++c) {
    for (int64_t i = w.start[c]; right && i < w.start[c + 1]; ++i) {
      right = w.row[i] >= 0 && w.row[i] < w.k && (i == w.start[c] || w.row[i] >= w.row[i - 1]);
    }
  }
  return right;
}

// What each kernel makes of `given`, one after another. Each gets a copy: what one asks of it is no help to the next.
template <class T>
std::vector<float> multiply(const Weights<T>& given, Format format) {
  constexpr int64_t kRows = 9;
  Epilogue epilogue;
  epilogue.bias.assign(static_cast<size_t>(given.n()), 0.5f);
  if (format == Format::kInt8) epilogue.scale.assign(static_cast<size_t>(given.n()), 1.0f);
  std::vector<float> x(static_cast<size_t>(kRows * given.k()));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 2.0f;
  std::vector<float> y(static_cast<size_t>(kRows * given.n())), all;
  for (const KernelInfo& kernel : runnable(format)) {
    const Weights<T> w = given;
    std::unique_ptr<Product> product;
    if constexpr (std::is_same_v<T, int8_t>) {
      product = kernel.make_int8(w, epilogue);
    } else if constexpr (std::is_same_v<T, uint16_t>) {
      product = kernel.make_bf16(w, epilogue);
    } else {
      product = kernel.make_fp32(w, epilogue);
    }
    product->run(x.data(), kRows, nullptr, y.data(), TwoThreads());
    all.insert(all.end(), y.begin(), y.end());
  }
  return all;
}

// True if it decoded. What is packed as it stands must multiply as what is packed from columns does, to the bit.
template <class T>
bool decode_and_multiply(const Encoded& encoded) {
  Csc<T> w;
  if (!decode(encoded, &w).empty()) return false;
  if (!inside(w)) {
    report("an encoding was let through with positions outside");
    return true;
  }
  const Format format = std::is_same_v<T, int8_t>     ? Format::kInt8
                        : std::is_same_v<T, uint16_t> ? Format::kBf16
                                                      : Format::kFp32;
  Weights<T> as_it_stands;
  if (std::string wrong = as_it_stands.read(encoded); !wrong.empty()) {
    report("an encoding decodes and is refused: " + wrong);
    return true;
  }
  nearly_dense += as_it_stands.nearly_dense() != nullptr;
  const std::vector<float> one = multiply(as_it_stands, format), other = multiply(Weights<T>(std::move(w)), format);
  if (std::memcmp(one.data(), other.data(), sizeof(float) * one.size()) != 0) report("columns multiply otherwise");
  return true;
}

// Columns as packed cover every weight and column once, in order, and their rows are inside.
bool inside(const ColumnsWeights& w) {
  int64_t at = 0, column = 0;
  for (const ColumnsWeights::Task& task : w.tasks) {
    const bool same_column = task.part > 0 && task.first == column - 1;
    if (task.start != at || (task.first != column && !same_column) || task.last <= task.first) return false;
    if (task.count > ColumnsWeights::kMostInTask) return false;
    int64_t before = 0;
    for (int32_t c = task.first; task.part < 0 && c < task.last; before = w.end[c++]) {
      if (w.end[c] < before || w.end[c] > task.count) return false;
    }
    at += task.count;
    column = task.last;
  }
  for (int64_t i = 0; i < w.count; ++i) {
    const void* row = w.row.get();
    if ((w.near ? static_cast<const uint16_t*>(row)[i] : static_cast<const uint32_t*>(row)[i]) >= w.k) return false;
  }
  return at == w.count && column == w.n;
}

bool pack_and_multiply(const Encoded& encoded) {
  Epilogue epilogue;
  epilogue.bias.assign(encoded.n > 0 && encoded.n < 100 ? static_cast<size_t>(encoded.n) : 0, 0.5f);
  for (const int64_t rows : {int64_t{1}, int64_t{9}}) {
    for (const KernelInfo& kernel : runnable(Format::kColumns)) {
      ColumnsWeights w;
      if (!pack_columns(encoded, epilogue, &w).empty()) return false;
      if (!inside(w)) {
        report("an encoding of columns was let through with positions outside");
        return true;
      }
      const std::vector<float> x(static_cast<size_t>(rows * w.k), 1.0f);
      std::vector<float> y(static_cast<size_t>(rows * w.n));
      kernel.make_columns(std::move(w))->run(x.data(), rows, nullptr, y.data(), TwoThreads());
    }
  }
  return true;
}

// Random positions: mostly of the right length, with gaps mostly small enough to stay inside.
bool random_encoding(Random& random) {
  const bool dense = random() % 2 == 0;
  // Plain steps throughout take all blocks of 64 inputs to be nearly full.
  const int64_t inputs = dense ? 64 * (1 + below(random, 3)) - below(random, 10) : 1 + below(random, 70);
  Encoded in{static_cast<Encoding>(below(random, 3)), inputs, 1 + below(random, 70)};
  const bool bitmask = in.encoding == Encoding::kBitmask;
  in.gap_type = static_cast<GapType>(below(random, 3));
  in.count = below(random, in.k * in.n / (1 + below(random, 8)) + 2);
  in.position_count = bitmask ? (in.k * in.n + 7) / 8 : in.count;
  if (random() % 8 == 0) in.position_count += below(random, 3) - 1;
  if (random() % 32 == 0) in.k = below(random, 3) - 1;
  if (random() % 32 == 0) in.n = below(random, 3) - 1;
  if (random() % 64 == 0) in.n = int64_t{1} << 62;
  if (in.position_count < 0) in.position_count = 0;

  const int64_t gap_bytes = bitmask ? 1 : int64_t{1} << static_cast<int>(in.gap_type);
  const int64_t size = in.position_count * gap_bytes;
  Buffer positions(random, size, bitmask ? 255 : 2 + below(random, 5));
  if (!bitmask && gap_bytes > 1 && random() % 4 != 0) {  // small integers: all bytes but the first are 0
    for (int64_t i = 0; i < size; ++i) positions.bytes[i] *= i % gap_bytes == 0;
  }
  for (int64_t i = 0; bitmask && dense && i < size; ++i) positions.bytes[i] |= static_cast<uint8_t>(random() | random());
  if (bitmask && dense && size > 0 && in.k > 0 && in.n > 0 && in.n < 100 && in.k * in.n % 8 != 0) {
    positions.bytes[size - 1] &= static_cast<uint8_t>((1 << in.k * in.n % 8) - 1);
  }
  if (bitmask) {  // as many values as bits, give or take
    in.count = below(random, 4) == 0 ? below(random, 3) - 1 : 0;
    for (int64_t i = 0; i < size; ++i) in.count += __builtin_popcount(positions.bytes[i]);
    if (in.count < 0) in.count = 0;
  }
  in.high_count = random() % 4 == 0 ? in.count : 1;
  if (random() % 32 == 0) in.high_count = below(random, 4);
  const int64_t size_of_value = in.encoding == Encoding::kColumns ? 4 : int64_t{1} << below(random, 3);
  Buffer high(random, in.high_count, 0), values(random, size_of_value * in.count, 255);
  if (in.high_count > 0 && random() % 8 == 0) high.bytes[below(random, in.high_count)] = 1;
  for (int64_t i = 0; size_of_value > 1 && i < in.count; ++i) {  // int8: any bytes; bfloat16: the high half of a float
    const float value = static_cast<float>(below(random, 5)) - 2.0f;
    std::memcpy(&values.bytes[size_of_value * i], reinterpret_cast<const char*>(&value) + 4 - size_of_value, size_of_value);
  }
  in.positions = positions.bytes.get();
  in.high = high.bytes.get();
  in.values = values.bytes.get();
  if (in.encoding == Encoding::kColumns) return pack_and_multiply(in);
  switch (size_of_value) {
    case 1: return decode_and_multiply<int8_t>(in);
    case 2: return decode_and_multiply<uint16_t>(in);
    default: return decode_and_multiply<float>(in);
  }
}

}  // namespace

void check_encodings(Random& random, int mutants) {
  int accepted = 0;
  for (int i = 0; i < mutants; ++i) accepted += random_encoding(random);
  // All ways must have been taken often, or this checks little.
  if (nearly_dense < mutants / 20) report("only " + std::to_string(nearly_dense) + " encodings were packed as they stand");
  if (accepted < mutants / 20 || accepted > mutants * 19 / 20) {
    report("of " + std::to_string(mutants) + " random encodings " + std::to_string(accepted) + " were accepted");
  }
}

}  // namespace sparsify
