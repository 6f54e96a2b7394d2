// The operators of the domain ai.sparsify as onnxruntime custom ops. Exports RegisterCustomOps.
//
// A session packs an operator's constant inputs once, when it is created; whatever is wrong with them is an error of
// the session that names the node. Inputs: X (or its quantised rows, scales and zero points), positions..., values, shape,
// [scale,] bias [, residual]; see sparsify/ops.
#include <memory>
#include <string>
#include <vector>

#include "columns_weights.h"
#include "dispatch.h"
#include "op_support.h"
#include "quantize_op.h"
#include "rows_weights.h"
#include "weights.h"

namespace sparsify {
namespace {

struct Operator {
  OrtCustomOp ort;  // first: onnxruntime hands back a pointer to it
  std::string name;
  Format format;
  Encoding encoding;
  Activation activation;
  bool residual;
  bool quantized;  // reads what DynamicQuantizeRows gives in place of X

  bool scaled() const { return format == Format::kInt8 || format == Format::kRowsInt8; }
  int value_type() const {
    if (scaled()) return ort::kInt8;
    return format == Format::kBf16 || format == Format::kRowsBf16 ? ort::kBfloat16 : ort::kFloat;
  }
  size_t positions_at() const { return quantized ? 3 : 1; }
  size_t values_at() const {
    if (encoding == Encoding::kRows) return positions_at();
    return positions_at() + (encoding == Encoding::kColumns ? 2 : 1);
  }
  size_t bias_at() const { return values_at() + (scaled() ? 3 : 2); }
  size_t residual_at() const { return bias_at() + 1; }
  size_t input_count() const { return bias_at() + (residual ? 2 : 1); }
};

const Operator& of(const OrtCustomOp* op) { return *reinterpret_cast<const Operator*>(op); }

Tensor constant(const OrtKernelInfo* info, size_t index, const char* what) {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  check(ort::KernelInfoGetConstantInput_tensor(g_api)(info, index, &is_constant, &value), "give a constant input");
  if (!is_constant || value == nullptr) throw Failure{std::string("input `") + what + "` is not a constant"};
  Tensor tensor;
  read(value, &tensor);
  return tensor;
}

Tensor constant(const OrtKernelInfo* info, size_t index, const char* what, int type, int64_t size) {
  Tensor tensor = constant(info, index, what);
  if (tensor.type != type || (size >= 0 && tensor.size() != size)) {
    throw Failure{std::string("input `") + what + "` has " + std::to_string(tensor.size()) + " elements of type " +
                  std::to_string(tensor.type) + ", expected " +
                  (size >= 0 ? std::to_string(size) : std::string("any number")) + " of type " + std::to_string(type)};
  }
  return tensor;
}

std::vector<float> floats(const Tensor& tensor) {
  const auto* data = static_cast<const float*>(tensor.data);
  return {data, data + tensor.size()};
}

GapType gap_type(const Tensor& gaps) {
  if (gaps.type == ort::kUint8) return GapType::kUint8;
  if (gaps.type == ort::kUint16) return GapType::kUint16;
  if (gaps.type == ort::kInt32) return GapType::kInt32;
  throw Failure{"gaps are of type " + std::to_string(gaps.type) + ", expected uint8, uint16 or int32"};
}

Encoded read_encoded(const Operator& op, const OrtKernelInfo* info) {
  const size_t at = op.values_at();
  const Tensor shape = constant(info, at + 1, "shape", ort::kInt64, 2);
  const auto* kn = static_cast<const int64_t*>(shape.data);
  const Tensor values = constant(info, at, "values", op.value_type(), -1);
  Encoded encoded{op.encoding, kn[0], kn[1]};
  encoded.values = values.data;
  encoded.count = values.size();
  if (op.encoding == Encoding::kColumns) {
    const Tensor high = constant(info, op.positions_at() + 1, "high", ort::kUint8, -1);
    encoded.high = static_cast<const uint8_t*>(high.data);
    encoded.high_count = high.size();
  }
  if (op.encoding == Encoding::kRows) return encoded;
  const Tensor positions = constant(info, op.positions_at(), "positions");
  if (op.encoding == Encoding::kBitmask && positions.type != ort::kUint8) throw Failure{"the bitmask is not uint8"};
  if (op.encoding != Encoding::kBitmask) encoded.gap_type = gap_type(positions);
  encoded.positions = positions.data;
  encoded.position_count = positions.size();
  return encoded;
}

// A session keeps constants for as long as it lives, but of those that it mapped from a file nothing need stay in memory.
template <class T, class P>
std::unique_ptr<P> pack(const Encoded& encoded, Epilogue epilogue,
                        std::unique_ptr<P> (*make)(const Weights<T>&, Epilogue)) {
  Weights<T> w;
  if (std::string wrong = w.read(encoded); !wrong.empty()) throw Failure{wrong};
  const auto let_go_of_all = [&] {
    let_go(encoded.positions, encoded.position_bytes());
    let_go(encoded.values, encoded.count * static_cast<int64_t>(sizeof(T)));
  };
  if (w.nearly_dense() == nullptr) let_go_of_all();  // columns are a copy
  std::unique_ptr<P> product = make(w, std::move(epilogue));
  let_go_of_all();
  return product;
}

// The values stay where they are: onnxruntime keeps a constant for as long as the session.
std::unique_ptr<Product> columns(const Encoded& encoded, Epilogue epilogue, ColumnsFactory make) {
  ColumnsWeights w;
  const std::string wrong = pack_columns(encoded, std::move(epilogue), &w);
  if (!wrong.empty()) throw Failure{wrong};
  return make(std::move(w));
}

std::unique_ptr<Product> all_rows(const Encoded& encoded, Epilogue epilogue, RowsFactory make) {
  if (const std::string wrong = wrong_rows(encoded); !wrong.empty()) throw Failure{wrong};
  return make({encoded.k, encoded.n, encoded.values, std::move(epilogue)});
}

struct Kernel {
  std::unique_ptr<Product> product;
  const Int8Product* integers;  // the product where the operator reads quantised rows, else null
  int64_t k, n;
  size_t residual_at;  // 0: none
  RunsAlone runs_alone{0};
};

std::unique_ptr<Kernel> make_kernel(const Operator& op, const OrtKernelInfo* info) {
  const Encoded encoded = read_encoded(op, info);
  const size_t bias_at = op.bias_at();
  Epilogue epilogue;
  epilogue.activation = op.activation;
  epilogue.bias = floats(constant(info, bias_at, "bias", ort::kFloat, encoded.n));
  if (op.scaled()) epilogue.scale = floats(constant(info, bias_at - 1, "scale", ort::kFloat, encoded.n));
  const KernelInfo& kernel = kernel_for(op.format);
  std::unique_ptr<Product> product;
  const Int8Product* integers = nullptr;
  switch (op.format) {
    case Format::kInt8: {
      auto packed = pack(encoded, std::move(epilogue), kernel.make_int8);
      if (op.quantized) integers = packed.get();
      product = std::move(packed);
      break;
    }
    case Format::kBf16: product = pack(encoded, std::move(epilogue), kernel.make_bf16); break;
    case Format::kColumns: product = columns(encoded, std::move(epilogue), kernel.make_columns); break;
    case Format::kRows:
    case Format::kRowsBf16:
    case Format::kRowsInt8: product = all_rows(encoded, std::move(epilogue), kernel.make_rows); break;
    default: product = pack(encoded, std::move(epilogue), kernel.make_fp32);
  }
  const size_t residual_at = op.residual ? op.residual_at() : 0;
  return std::unique_ptr<Kernel>(new Kernel{std::move(product), integers, encoded.k, encoded.n, residual_at});
}

// The residual, [..., N] as Y; null where the operator has none.
const float* residual_for(const Kernel& kernel, OrtKernelContext* context, const Dimensions& dimensions) {
  if (kernel.residual_at == 0) return nullptr;
  static thread_local Tensor residual;
  input(context, kernel.residual_at, &residual);
  if (residual.dimensions != dimensions) {
    throw Failure{"ai.sparsify: the residual has shape " + text(residual.dimensions) + ", the product " +
                  text(dimensions)};
  }
  return static_cast<const float*>(residual.data);
}

// Scales and zero points of quantised rows of `dimensions`. Nothing else about them could be wrong: every byte is in range.
Quantized quantized_rows(const Tensor& q, OrtKernelContext* context, Dimensions* dimensions) {
  static thread_local Tensor scale, zero_point;
  input(context, 1, &scale);
  input(context, 2, &zero_point);
  dimensions->back() = 1;
  if (scale.dimensions != *dimensions || zero_point.dimensions != *dimensions) {
    throw Failure{"ai.sparsify: quantised rows of shape " + text(q.dimensions) + " have scales of shape " +
                  text(scale.dimensions) + " and zero points of shape " + text(zero_point.dimensions)};
  }
  return {static_cast<const uint8_t*>(q.data), static_cast<const float*>(scale.data),
          static_cast<const uint8_t*>(zero_point.data)};
}

// Shapes stand in vectors that a thread keeps, so that the next run allocates nothing.
void compute(Kernel& kernel, OrtKernelContext* context) {
  static thread_local Tensor x;
  static thread_local Dimensions dimensions;
  input(context, 0, &x);
  if (x.dimensions.empty() || x.dimensions.back() != kernel.k) {
    const auto last = x.dimensions.empty() ? std::string("no") : std::to_string(x.dimensions.back());
    throw Failure{"ai.sparsify: X has " + last + " inputs in its last dimension, the weight has " +
                  std::to_string(kernel.k)};
  }
  dimensions = x.dimensions;
  const auto run = [&](const auto& product, const auto& rows) {
    dimensions.back() = kernel.n;
    const float* residual = residual_for(kernel, context, dimensions);
    auto* y = static_cast<float*>(output(context, 0, dimensions));
    product.run(rows, x.size() / kernel.k, residual, y, OrtPool(context, &kernel.runs_alone));
  };
  if (kernel.integers != nullptr) return run(*kernel.integers, quantized_rows(x, context, &dimensions));
  run(*kernel.product, static_cast<const float*>(x.data));
}

// What onnxruntime calls.

OrtStatus* create_kernel(const OrtCustomOp* op, const OrtApi*, const OrtKernelInfo* info, void** out) {
  return guarded([&] {
    try {
      *out = make_kernel(of(op), info).release();
    } catch (const Failure& failure) {
      throw Failure{"ai.sparsify." + of(op).name + " node `" + node_name(info) + "`: " + failure.what};
    }
  });
}

OrtStatus* compute_kernel(void* kernel, OrtKernelContext* context) {
  return guarded([&] { compute(*static_cast<Kernel*>(kernel), context); });
}

void destroy_kernel(void* kernel) { delete static_cast<Kernel*>(kernel); }

int input_type(const OrtCustomOp* op, size_t index) {
  const Operator& o = of(op);
  const size_t at = o.values_at(), first = o.positions_at();
  if (index == at) return o.value_type();
  if (index == at + 1) return ort::kInt64;
  if (index < first) return o.quantized && index != 1 ? ort::kUint8 : ort::kFloat;
  if (index > at + 1) return ort::kFloat;
  if (index > first || o.encoding == Encoding::kBitmask) return ort::kUint8;
  return ort::kUndefined;  // gaps: one of three types
}

Operator make_operator(Format format, Encoding encoding, Activation activation, bool residual, bool quantized) {
  static const char* const kFormats[] = {"", "Int8", "", "Bf16", "", "Bf16", "Int8"};
  static const char* const kEncodings[] = {"", "Delta", "Columns", "Rows"};
  static const char* const kActivations[] = {"", "Relu", "Gelu", "GeluTanh", "Silu", "Sigmoid", "Tanh"};
  Operator op{};
  op.name = std::string("SparseMatMul") + (quantized ? "Integer" : kFormats[static_cast<int>(format)]) +
            kEncodings[static_cast<int>(encoding)] + kActivations[static_cast<int>(activation)] + (residual ? "Add" : "");
  op.format = format;
  op.encoding = encoding;
  op.activation = activation;
  op.residual = residual;
  op.quantized = quantized;
  set_defaults(&op.ort);
  op.ort.GetName = [](const OrtCustomOp* o) { return of(o).name.c_str(); };
  op.ort.GetInputType = input_type;
  op.ort.GetInputTypeCount = [](const OrtCustomOp* o) { return of(o).input_count(); };
  op.ort.GetOutputType = [](const OrtCustomOp*, size_t) { return static_cast<int>(ort::kFloat); };
  op.ort.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  op.ort.KernelDestroy = destroy_kernel;
  op.ort.CreateKernelV2 = create_kernel;
  op.ort.KernelComputeV2 = compute_kernel;
  return op;
}

const std::vector<Operator>& operators() {
  static const std::vector<Operator> all = [] {
    std::vector<Operator> ops;
    const auto add = [&](Activation activation, bool residual) {
      const auto one = [&](Format format, Encoding encoding, bool quantized = false) {
        ops.push_back(make_operator(format, encoding, activation, residual, quantized));
      };
      for (const Encoding encoding : {Encoding::kBitmask, Encoding::kDelta}) {
        one(Format::kFp32, encoding);
        one(Format::kInt8, encoding);
        one(Format::kInt8, encoding, true);
        one(Format::kBf16, encoding);
      }
      one(Format::kColumns, Encoding::kColumns);
      one(Format::kRows, Encoding::kRows);
      one(Format::kRowsBf16, Encoding::kRows);
      one(Format::kRowsInt8, Encoding::kRows);
    };
    for (int i = 0; i <= static_cast<int>(Activation::kTanh); ++i) add(static_cast<Activation>(i), false);
    add(Activation::kNone, true);
    return ops;
  }();
  return all;
}

// Where only the scalar reference could run, the model's own function is faster. COLUMNS has no faster rival.
bool worth_registering(const Operator& op) {
  return op.encoding == Encoding::kColumns || isa_is_forced() || kernel_for(op.format).isa != Isa::kScalar;
}

}  // namespace
}  // namespace sparsify

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                             const OrtApiBase* base) {
  using namespace sparsify;
  const OrtApi* api = base->GetApi(ort::kApiVersion);
  if (api == nullptr) {  // slot 0 of every version creates a status
    return ort::CreateStatus(base->GetApi(1))(ort::kFail, "ai.sparsify needs onnxruntime 1.17 or later");
  }
  g_api = api;
  OrtCustomOpDomain* domain = nullptr;
  OrtStatus* status = ort::CreateCustomOpDomain(api)("ai.sparsify", &domain);
  for (const Operator& op : operators()) {
    if (status == nullptr && worth_registering(op)) status = ort::CustomOpDomain_Add(api)(domain, &op.ort);
  }
  if (status == nullptr && (isa_is_forced() || kernel_for(Format::kQuantize).isa != Isa::kScalar)) {
    status = ort::CustomOpDomain_Add(api)(domain, quantize_op());
  }
  return status != nullptr ? status : ort::AddCustomOpDomain(api)(options, domain);
}
