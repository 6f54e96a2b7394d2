// Every kernel against the scalar one (int8: to the bit) or against float64 within a derived bound (float).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "columns_weights.h"
#include "driver.h"
#include "rows_weights.h"
#include "weights.h"

namespace sparsify {
namespace {

struct Shape {
  int64_t k, n, rows;
};

// Around the multiples of 4, 16, 64 and 128 that kernels work in.
Shape random_shape(Random& random) {
  static constexpr int64_t kSizes[] = {1,  3,  4,  5,   8,   15,  16,  17,  31,  33, 48,
                                       63, 64, 65, 100, 127, 128, 129, 200, 257, 530};
  static constexpr int64_t kRows[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 63, 64, 65, 130};
  const auto pick = [&](const auto& from) { return from[below(random, static_cast<int64_t>(std::size(from)))]; };
  return {pick(kSizes), pick(kSizes), pick(kRows)};
}

float uniform(Random& random) { return static_cast<float>(below(random, 1 << 20)) / (1 << 19) - 1.0f; }

template <class T>
T random_value(Random& random);

template <>
float random_value<float>(Random& random) {
  return uniform(random);
}

// Ends of the range often: two products of 255 and 127 leave 16 bits.
template <>
int8_t random_value<int8_t>(Random& random) {
  static constexpr int8_t kEnds[] = {-128, -127, 127, 127, 65, 64, -64, 1};
  return random() % 2 == 0 ? kEnds[random() % std::size(kEnds)] : static_cast<int8_t>(below(random, 256) - 128);
}

// One density for the layer; a tenth of the columns empty, in half of all layers a tenth full; half of all layers of one
// sign. A full column makes its group take plain steps: layers without any are there for the other steps.
template <class T>
Csc<T> random_weight(Random& random, const Shape& shape) {
  static constexpr int kPerMille[] = {0, 5, 30, 60, 125, 250, 500, 750, 1000};
  const int64_t density = kPerMille[random() % std::size(kPerMille)];
  const bool one_sign = random() % 2 == 0, some_full = random() % 2 == 0;
  Csc<T> w;
  w.k = shape.k;
  w.n = shape.n;
  w.start.push_back(0);
  for (int64_t c = 0; c < w.n; ++c) {
    const int64_t kind = below(random, 10), here = kind == 0 ? 0 : kind == 1 && some_full ? 1000 : density;
    for (int64_t k = 0; k < w.k; ++k) {
      if (below(random, 1000) >= here) continue;
      auto value = random_value<T>(random);
      if (one_sign && value > T(0)) value = static_cast<T>(-value);
      if (value == T(0)) continue;
      w.row.push_back(static_cast<int32_t>(k));
      w.value.push_back(value);
    }
    w.start.push_back(w.nnz());
  }
  return w;
}

// Rows of very different ranges; rows of one sign, of zeros, at the ends of their range, of the largest
// exponent; rarely one that is not finite.
std::vector<float> random_rows(Random& random, const Shape& shape) {
  std::vector<float> x(static_cast<size_t>(shape.rows * shape.k));
  for (int64_t m = 0; m < shape.rows; ++m) {
    const int64_t kind = below(random, 12);
    const float range = std::ldexp(1.0f, static_cast<int>(below(random, 40)) - 20);
    for (int64_t k = 0; k < shape.k; ++k) {
      float v = uniform(random) * range;
      if (kind < 3) v = std::fabs(v);
      if (kind == 3) v = 0.0f;
      if (kind == 4) v = random() % 2 == 0 ? range : -range;
      if (kind == 5) v = range;
      if (kind == 7) v = std::copysign(std::ldexp(1.0f, 127), v);
      x[m * shape.k + k] = v;
    }
    if (kind == 6) {
      static const float kBad[] = {NAN, INFINITY, -INFINITY};
      x[m * shape.k + below(random, shape.k)] = kBad[random() % 3];
    }
  }
  return x;
}

Epilogue random_epilogue(Random& random, int64_t n, bool integer, Activation activation) {
  Epilogue epilogue;
  epilogue.activation = activation;
  for (int64_t c = 0; c < n; ++c) {
    epilogue.bias.push_back(uniform(random));
    if (integer) epilogue.scale.push_back(std::ldexp(1.0f + uniform(random) / 4, -8));
  }
  return epilogue;
}

// Exactly as long as it must be, one float off any alignment: a sanitizer sees the first byte read or written beyond.
// Without one, the guards before and behind the output tell.
// residual: empty for none.
std::vector<float> run(const Product& product, const std::vector<float>& x, const std::vector<float>& residual,
                       const Shape& shape, const std::string& name) {
  constexpr float kGuard = 12345.0f;
  const size_t size = static_cast<size_t>(shape.rows * shape.n);
  std::unique_ptr<float[]> in(new float[x.size() + 1]), added(new float[residual.size() + 1]), out(new float[size + 2]);
  if (!x.empty()) std::memcpy(in.get() + 1, x.data(), x.size() * sizeof(float));
  std::copy(residual.begin(), residual.end(), added.get() + 1);
  std::fill(out.get(), out.get() + size + 2, kGuard);
  product.run(in.get() + 1, shape.rows, residual.empty() ? nullptr : added.get() + 1, out.get() + 1, TwoThreads());
  if (out[0] != kGuard || out[size + 1] != kGuard) report(name + " wrote beyond its output");
  return {out.get() + 1, out.get() + 1 + size};
}

// Rows quantised by one kernel, and the same buffers exactly as long as they must be, one byte off any alignment.
struct QuantizedBuffers {
  std::unique_ptr<uint8_t[]> q, zero_point;
  std::unique_ptr<float[]> scale;

  QuantizedBuffers(const KernelInfo& kernel, const std::vector<float>& x, const Shape& shape)
      : q(new uint8_t[x.size() + 2]), zero_point(new uint8_t[shape.rows + 1]), scale(new float[shape.rows + 1]) {
    q[0] = q[x.size() + 1] = 77;
    std::unique_ptr<float[]> in(new float[x.size()]);
    if (!x.empty()) std::memcpy(in.get(), x.data(), x.size() * sizeof(float));
    kernel.quantize(in.get(), shape.rows, shape.k, q.get() + 1, scale.get(), zero_point.get(), TwoThreads());
    if (q[0] != 77 || q[x.size() + 1] != 77) report(kernel.name + " wrote beyond its output");
  }
};

std::vector<float> run(const Int8Product& product, const QuantizedBuffers& x, const std::vector<float>& residual,
                       const Shape& shape) {
  const size_t size = static_cast<size_t>(shape.rows * shape.n), inputs = static_cast<size_t>(shape.rows * shape.k);
  std::unique_ptr<uint8_t[]> q(new uint8_t[inputs + 1]);  // ends where the rows end: nothing behind may be read
  if (inputs > 0) std::memcpy(q.get() + 1, x.q.get() + 1, inputs);
  std::unique_ptr<float[]> out(new float[size]);
  product.run(Quantized{q.get() + 1, x.scale.get(), x.zero_point.get()}, shape.rows,
              residual.empty() ? nullptr : residual.data(), out.get(), TwoThreads());
  return {out.get(), out.get() + size};
}

// For half of all layers [rows, N], else empty.
std::vector<float> random_residual(Random& random, const Shape& shape) {
  std::vector<float> residual(random() % 2 == 0 ? static_cast<size_t>(shape.rows * shape.n) : 0);
  for (float& v : residual) v = uniform(random);
  return residual;
}

std::string describe(const std::string& name, const Shape& shape, size_t at, float got, double expected) {
  return name + " K=" + std::to_string(shape.k) + " N=" + std::to_string(shape.n) + " rows=" +
         std::to_string(shape.rows) + " output " + std::to_string(at) + ": " + std::to_string(got) + ", expected " +
         std::to_string(expected);
}

bool same(float a, float b) { return (std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, sizeof a) == 0; }

// Of a row whose scale is NaN the rest means nothing.
void compare(const KernelInfo& kernel, const QuantizedBuffers& got, const QuantizedBuffers& expected, const Shape& shape) {
  for (int64_t m = 0; m < shape.rows; ++m) {
    const uint8_t *row = got.q.get() + 1 + m * shape.k, *right = expected.q.get() + 1 + m * shape.k;
    const bool equal = std::memcmp(row, right, static_cast<size_t>(shape.k)) == 0 &&
                       got.zero_point[m] == expected.zero_point[m];
    if (!same(got.scale[m], expected.scale[m]) || (!equal && !std::isnan(got.scale[m]))) {
      return report(kernel.name + " K=" + std::to_string(shape.k) + " row " + std::to_string(m) + " differs");
    }
  }
}

void check_int8(Random& random, const Shape& shape) {
  const auto w = random_weight<int8_t>(random, shape);
  const auto x = random_rows(random, shape);
  const auto activation = static_cast<Activation>(below(random, static_cast<int64_t>(Activation::kTanh) + 1));
  const auto residual = random_residual(random, shape);
  const Epilogue epilogue = random_epilogue(random, shape.n, true, activation);
  const auto found = runnable(Format::kInt8);
  const auto expected = run(*found.back().make_int8(w, epilogue), x, residual, shape, "scalar");
  for (const KernelInfo& kernel : found) {
    const auto y = run(*kernel.make_int8(w, epilogue), x, residual, shape, kernel.name);
    for (size_t i = 0; i < y.size(); ++i) {
      if (!same(y[i], expected[i])) return report(describe(kernel.name, shape, i, y[i], expected[i]));
    }
  }
  const auto quantize = runnable(Format::kQuantize);
  const QuantizedBuffers rows(quantize.back(), x, shape);
  for (const KernelInfo& kernel : quantize) compare(kernel, QuantizedBuffers(kernel, x, shape), rows, shape);
  for (const KernelInfo& kernel : found) {
    const auto y = run(*kernel.make_int8(w, epilogue), rows, residual, shape);
    for (size_t i = 0; i < y.size(); ++i) {
      if (!same(y[i], expected[i])) return report(describe(kernel.name + " quantised", shape, i, y[i], expected[i]));
    }
  }
}

// To 8 significant bits, ties to even. Nothing here comes near a denormal.
float to_bf16(float value) {
  int exponent = 0;
  const float mantissa = std::frexp(value, &exponent);
  return std::isfinite(value) ? std::ldexp(std::nearbyint(std::ldexp(mantissa, 8)), exponent - 8) : value;
}

Csc<uint16_t> bits_of(const Csc<float>& w) {
  Csc<uint16_t> out{w.k, w.n, w.start, w.row, {}};
  for (const float value : w.value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    out.value.push_back(static_cast<uint16_t>(bits >> 16));
  }
  return out;
}

// The encoding COLUMNS of a matrix; gaps of 16 bits, their high parts only where one is needed.
struct Gaps {
  std::vector<uint16_t> low;
  std::vector<uint8_t> high;
  const Csc<float>& w;

  explicit Gaps(const Csc<float>& from) : w(from) {
    int64_t before = -1;
    for (int64_t c = 0; c < w.n; ++c) {
      for (int64_t i = w.start[c]; i < w.start[c + 1]; ++i) {
        const int64_t position = c * w.k + w.row[i], gap = position - before;
        low.push_back(static_cast<uint16_t>(gap));
        high.push_back(static_cast<uint8_t>(gap >> 16));
        before = position;
      }
    }
    if (std::all_of(high.begin(), high.end(), [](uint8_t h) { return h == 0; })) high.assign(1, 0);
  }

  std::unique_ptr<Product> product(const KernelInfo& kernel, const Epilogue& epilogue) const {
    const int64_t count = w.nnz();
    Encoded in{Encoding::kColumns, w.k, w.n, high.data(), static_cast<int64_t>(high.size()), low.data(), count,
               GapType::kUint16, w.value.data(), count};
    ColumnsWeights packed;
    if (const std::string wrong = pack_columns(in, epilogue, &packed); !wrong.empty()) report("COLUMNS: " + wrong);
    return kernel.make_columns(std::move(packed));
  }
};

constexpr float kUnit = 64.0f;  // of int8 weights of rows, that are compared in units of their own

// All weights of a matrix, row by row.
struct Dense {
  int64_t k, n;
  std::vector<float> value;
  std::vector<uint16_t> bits;
  std::vector<int8_t> integer;

  explicit Dense(const Csc<float>& w)
      : k(w.k), n(w.n), value(static_cast<size_t>(w.k * w.n)), bits(value.size()), integer(value.size()) {
    const auto rounded = bits_of(w);
    for (int64_t c = 0; c < n; ++c) {
      for (int64_t i = w.start[c]; i < w.start[c + 1]; ++i) {
        value[w.row[i] * n + c] = w.value[i];
        bits[w.row[i] * n + c] = rounded.value[i];
        integer[w.row[i] * n + c] = static_cast<int8_t>(std::lrint(w.value[i] * kUnit));
      }
    }
  }

  std::unique_ptr<Product> product(const KernelInfo& kernel, const Epilogue& epilogue) const {
    const void* all = value.data();
    if (kernel.format == Format::kRowsBf16) all = bits.data();
    if (kernel.format == Format::kRowsInt8) all = integer.data();
    return kernel.make_rows({k, n, all, epilogue});
  }
};

// |error| <= gamma (sum |x w| + |bias|), gamma = (n + 1) u / (1 - (n + 1) u), u = 2^-24, in any order of summation
// (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). Relu does not add to it; the sum with the residual is
// rounded once more: u (|product| + |residual|), and no |product| is more than its bound above |exact|. bf16: of rounded
// x and w.
void check_float(Random& random, const Shape& shape, Format format) {
  const bool bf16 = format == Format::kBf16;  // of kRowsBf16 the weights alone are rounded
  auto w = random_weight<float>(random, shape);
  if (bf16 || format == Format::kRowsBf16) std::transform(w.value.begin(), w.value.end(), w.value.begin(), to_bf16);
  const bool integer = format == Format::kRowsInt8;
  if (integer) {
    std::transform(w.value.begin(), w.value.end(), w.value.begin(), [](float v) { return std::rint(v * kUnit) / kUnit; });
  }
  const auto given = random_rows(random, shape);
  auto x = given;
  if (bf16) std::transform(x.begin(), x.end(), x.begin(), to_bf16);
  const bool relu = random() % 2 == 0;
  const Epilogue epilogue = random_epilogue(random, shape.n, integer, relu ? Activation::kRelu : Activation::kNone);
  const auto residual = random_residual(random, shape);
  const double terms = static_cast<double>(shape.k + (integer ? 2 : 1)) * std::ldexp(1.0, -24), gamma = terms / (1 - terms);
  const Gaps gaps(w);
  const Dense dense(w);
  for (const KernelInfo& kernel : runnable(format)) {
    const auto product = bf16                           ? kernel.make_bf16(bits_of(w), epilogue)
                         : format == Format::kColumns ? gaps.product(kernel, epilogue)
                         : kernel.make_rows != nullptr ? dense.product(kernel, epilogue)
                                                      : kernel.make_fp32(w, epilogue);
    const auto y = run(*product, given, residual, shape, kernel.name);
    for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
      const int64_t m = i / shape.n, c = i % shape.n;
      const float* row = x.data() + m * shape.k;
      double exact = epilogue.bias[c], magnitude = std::fabs(exact);
      const double unit = integer ? static_cast<double>(kUnit) * epilogue.scale[c] : 1.0;
      for (int64_t j = w.start[c]; j < w.start[c + 1]; ++j) {
        exact += unit * row[w.row[j]] * w.value[j];
        magnitude += std::fabs(unit * row[w.row[j]] * w.value[j]);
      }
      const bool finite = std::all_of(row, row + shape.k, [](float v) { return std::isfinite(v); });
      const double largest = magnitude / (integer ? epilogue.scale[c] : 1.0f);  // a sum on the way, in any order
      if (finite && largest > std::numeric_limits<float>::max()) continue;
      if (relu) exact = std::max(exact, 0.0);
      double bound = gamma * magnitude + 1e-37;
      if (!residual.empty()) {
        bound += std::ldexp(std::fabs(exact) + bound + std::fabs(residual[i]), -24);
        exact += residual[i];
      }
      const bool right = finite ? std::fabs(y[i] - exact) <= bound : std::isnan(y[i]);
      if (!right) return report(describe(kernel.name, shape, static_cast<size_t>(i), y[i], exact));
    }
  }
}

}  // namespace

void check_products(Random& random, int layers) {
  for (int i = 0; i < layers; ++i) {
    const uint64_t seed = random();
    for (const Format format : {Format::kInt8, Format::kFp32, Format::kColumns, Format::kBf16, Format::kRows,
                                Format::kRowsBf16, Format::kRowsInt8}) {
      Random own(seed + static_cast<uint64_t>(format));  // a further format changes no layer of the others
      const Shape shape = random_shape(own);
      format == Format::kInt8 ? check_int8(own, shape) : check_float(own, shape, format);
    }
  }
  // Long columns: more blocks than a tile, and more non-zeros than panels of exact floats may sum.
  for (const Shape& shape : {Shape{2100, 37, 70}, Shape{1200, 19, 9}}) {
    for (int i = 0; i < 4; ++i) check_int8(random, shape);
    check_float(random, shape, Format::kFp32);
    check_float(random, shape, Format::kBf16);
    check_float(random, shape, Format::kColumns);
    check_float(random, shape, Format::kRows);
  }
  // Rows of 32 bits, and columns of several tasks.
  for (const int64_t rows : {1, 3, 40}) check_float(random, {70001, 3, rows}, Format::kColumns);
}

}  // namespace sparsify
