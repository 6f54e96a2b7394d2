// A C interface to the kernels without onnxruntime, for tests, benchmarks and `sparsify doctor`.
#include <cstdio>
#include <cstring>
#include <exception>

#include "columns_weights.h"
#include "dispatch.h"
#include "rows_weights.h"
#include "weights.h"

namespace sparsify {
namespace {

class SerialPool final : public Pool {
 public:
  void parallel(int64_t count, Task task, void* argument) const override {
    for (int64_t i = 0; i < count; ++i) task(argument, static_cast<size_t>(i));
  }
};

template <class T, class Factory>
Product* pack(const Encoded& encoded, Epilogue epilogue, Factory make, std::string* error) {
  Weights<T> w;
  *error = w.read(encoded);
  return error->empty() ? make(w, std::move(epilogue)).release() : nullptr;
}

Product* columns(const Encoded& encoded, Epilogue epilogue, ColumnsFactory make, std::string* error) {
  ColumnsWeights w;
  *error = pack_columns(encoded, std::move(epilogue), &w);
  return error->empty() ? make(std::move(w)).release() : nullptr;
}

Product* rows(const Encoded& encoded, Epilogue epilogue, RowsFactory make, std::string* error) {
  *error = wrong_rows(encoded);
  return error->empty() ? make({encoded.k, encoded.n, encoded.values, std::move(epilogue)}).release() : nullptr;
}

const KernelInfo* find(const char* name) {
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.name == name) return &kernel;
  }
  return nullptr;
}

std::string joined_isas() {
  std::string names;
  for (const Isa isa : isas()) names += std::string(names.empty() ? "" : " ") + isa_name(isa);
  return names;
}

// A line a kernel: name, format, lowest ISA path.
std::string listed_kernels() {
  static const char* const kFormats[] = {"fp32", "int8", "columns", "bf16", "rows", "rows_bf16", "rows_int8", "quantize"};
  std::string lines;
  for (const KernelInfo& kernel : kernels()) {
    lines += kernel.name + " " + kFormats[static_cast<int>(kernel.format)] + " " + isa_name(kernel.isa) + "\n";
  }
  return lines;
}

}  // namespace
}  // namespace sparsify

#define SPARSIFY_EXPORT extern "C" __attribute__((visibility("default")))

using sparsify::Product;

// Path in force, and all paths that this CPU can run, fastest first, separated by spaces.
SPARSIFY_EXPORT const char* sparsify_isa() { return sparsify::isa_name(sparsify::chosen_isa()); }

SPARSIFY_EXPORT const char* sparsify_isas() {
  static const std::string names = sparsify::joined_isas();
  return names.c_str();
}

SPARSIFY_EXPORT const char* sparsify_kernels() {
  static const std::string lines = sparsify::listed_kernels();
  return lines.c_str();
}

// Packs W for the kernel of that name. encoding: 0 bitmask, 1 delta, 2 columns, 3 rows; gap_bytes: 1, 2 or 4;
// activation: place in enum Activation; bias [N]; scale [N], or null where weights are float. Kernels of columns and rows
// read the values for as long as they live. Null on failure, with the reason in error [error_size].
SPARSIFY_EXPORT Product* sparsify_pack(const char* kernel, int encoding, int64_t k, int64_t n, const uint8_t* high,
                                       int64_t high_count, const void* positions, int64_t position_count, int gap_bytes,
                                       const void* values, int64_t count, const float* scale, const float* bias,
                                       int activation, char* error, size_t error_size) {
  std::string wrong;
  Product* product = nullptr;
  try {
    const sparsify::KernelInfo* info = sparsify::find(kernel);
    if (info == nullptr || info->quantize != nullptr || !sparsify::can_run(info->isa)) {
      wrong = std::string("no kernel `") + kernel + "` on this CPU";
    } else {
      sparsify::Encoded encoded{static_cast<sparsify::Encoding>(encoding), k, n};
      encoded.high = high;
      encoded.high_count = high_count;
      encoded.positions = positions;
      encoded.position_count = position_count;
      encoded.gap_type = gap_bytes == 1   ? sparsify::GapType::kUint8
                         : gap_bytes == 2 ? sparsify::GapType::kUint16
                                          : sparsify::GapType::kInt32;
      encoded.values = values;
      encoded.count = count;
      sparsify::Epilogue epilogue;
      epilogue.bias.assign(bias, bias + n);
      if (scale != nullptr) epilogue.scale.assign(scale, scale + n);
      epilogue.activation = static_cast<sparsify::Activation>(activation);
      if (info->format == sparsify::Format::kInt8) {
        product = sparsify::pack<int8_t>(encoded, std::move(epilogue), info->make_int8, &wrong);
      } else if (info->format == sparsify::Format::kBf16) {
        product = sparsify::pack<uint16_t>(encoded, std::move(epilogue), info->make_bf16, &wrong);
      } else if (info->format == sparsify::Format::kColumns) {
        product = sparsify::columns(encoded, std::move(epilogue), info->make_columns, &wrong);
      } else if (info->make_rows != nullptr) {
        product = sparsify::rows(encoded, std::move(epilogue), info->make_rows, &wrong);
      } else {
        product = sparsify::pack<float>(encoded, std::move(epilogue), info->make_fp32, &wrong);
      }
    }
  } catch (const std::exception& failure) {
    wrong = failure.what();
  }
  std::snprintf(error, error_size, "%s", wrong.c_str());
  return product;
}

// y [rows, N] = product of x [rows, K], plus residual [rows, N] unless it is null, on the calling thread.
SPARSIFY_EXPORT void sparsify_run(const Product* product, const float* x, int64_t rows, const float* residual, float* y) {
  product->run(x, rows, residual, y, sparsify::SerialPool());
}

// The same of quantised rows: q [rows, K], scale [rows], zero_point [rows]. False where the kernel is not one of int8.
SPARSIFY_EXPORT bool sparsify_run_quantized(const Product* product, const uint8_t* q, const float* scale,
                                            const uint8_t* zero_point, int64_t rows, const float* residual, float* y) {
  const auto* integers = dynamic_cast<const sparsify::Int8Product*>(product);
  if (integers == nullptr) return false;
  integers->run(sparsify::Quantized{q, scale, zero_point}, rows, residual, y, sparsify::SerialPool());
  return true;
}

// q, scale and zero_point of x [rows, K], K >= 1, by the kernel of that name; false where this CPU can run none.
SPARSIFY_EXPORT bool sparsify_quantize(const char* kernel, const float* x, int64_t rows, int64_t k, uint8_t* q,
                                       float* scale, uint8_t* zero_point) {
  const sparsify::KernelInfo* info = sparsify::find(kernel);
  if (info == nullptr || info->quantize == nullptr || !sparsify::can_run(info->isa)) return false;
  info->quantize(x, rows, k, q, scale, zero_point, sparsify::SerialPool());
  return true;
}

SPARSIFY_EXPORT int64_t sparsify_bytes(const Product* product) { return product->bytes(); }

SPARSIFY_EXPORT void sparsify_release(Product* product) { delete product; }
