// The operators of the domain ai.sparsify as onnxruntime custom ops. Exports RegisterCustomOps.
//
// A session packs an operator's constant inputs once, when it is created; whatever is wrong with them is an error of
// the session that names the node. Inputs: X, positions..., values, shape, [scale,] bias
// [, residual]; see sparsify/ops.
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include "columns_weights.h"
#include "dispatch.h"
#include "ort_api.h"
#include "rows_weights.h"
#include "weights.h"

namespace sparsify {
namespace {

const OrtApi* g_api = nullptr;  // set once, before any op can run

struct Operator {
  OrtCustomOp ort;  // first: onnxruntime hands back a pointer to it
  std::string name;
  Format format;
  Encoding encoding;
  Activation activation;
  bool residual;

  bool integer() const { return format == Format::kInt8; }
  int value_type() const {
    if (integer()) return ort::kInt8;
    return format == Format::kBf16 || format == Format::kRowsBf16 ? ort::kBfloat16 : ort::kFloat;
  }
  size_t values_at() const {
    if (encoding == Encoding::kRows) return 1;
    return encoding == Encoding::kColumns ? 3 : 2;
  }
  size_t bias_at() const { return values_at() + (integer() ? 3 : 2); }
  size_t residual_at() const { return bias_at() + 1; }
  size_t input_count() const { return bias_at() + (residual ? 2 : 1); }
};

const Operator& of(const OrtCustomOp* op) { return *reinterpret_cast<const Operator*>(op); }

// A message on its way out as a status; nothing of ours crosses the C boundary.
struct Failure {
  std::string what;
};

void check(OrtStatus* status, const char* doing) {
  if (status == nullptr) return;
  ort::ReleaseStatus(g_api)(status);
  throw Failure{std::string("onnxruntime refused to ") + doing};
}

template <class F>
OrtStatus* guarded(F&& body) {
  try {
    body();
    return nullptr;
  } catch (const Failure& failure) {
    return ort::CreateStatus(g_api)(ort::kInvalidArgument, failure.what.c_str());
  } catch (const std::bad_alloc&) {
    return ort::CreateStatus(g_api)(ort::kFail, "ai.sparsify: out of memory");
  } catch (const std::exception& error) {
    return ort::CreateStatus(g_api)(ort::kFail, error.what());
  }
}

using Dimensions = std::vector<int64_t>;

struct Tensor {
  const void* data = nullptr;
  int type = ort::kUndefined;
  Dimensions dimensions;
  int64_t size() const {
    return std::accumulate(dimensions.begin(), dimensions.end(), int64_t{1}, std::multiplies<>());
  }
};

void read(const OrtValue* value, Tensor* out) {
  Tensor& tensor = *out;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(ort::GetTensorTypeAndShape(g_api)(value, &info), "tell a shape");
  size_t rank = 0;
  OrtStatus* bad = ort::GetTensorElementType(g_api)(info, &tensor.type);
  if (bad == nullptr) bad = ort::GetDimensionsCount(g_api)(info, &rank);
  tensor.dimensions.resize(rank);
  if (bad == nullptr) bad = ort::GetDimensions(g_api)(info, tensor.dimensions.data(), rank);
  ort::ReleaseTensorTypeAndShapeInfo(g_api)(info);
  check(bad, "tell a shape");
  void* data = nullptr;
  check(ort::GetTensorMutableData(g_api)(const_cast<OrtValue*>(value), &data), "give a tensor's data");
  tensor.data = data;
}

std::string node_name(const OrtKernelInfo* info) {
  size_t size = 0;
  OrtStatus* status = ort::KernelInfo_GetNodeName(g_api)(info, nullptr, &size);
  if (status != nullptr) ort::ReleaseStatus(g_api)(status);
  std::string name(size, '\0');
  status = ort::KernelInfo_GetNodeName(g_api)(info, name.data(), &size);
  if (status != nullptr) ort::ReleaseStatus(g_api)(status);
  name.resize(std::strlen(name.c_str()));
  return name;
}

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
    const Tensor high = constant(info, 2, "high", ort::kUint8, -1);
    encoded.high = static_cast<const uint8_t*>(high.data);
    encoded.high_count = high.size();
  }
  if (op.encoding == Encoding::kRows) return encoded;
  const Tensor positions = constant(info, 1, "positions");
  if (op.encoding == Encoding::kBitmask && positions.type != ort::kUint8) throw Failure{"the bitmask is not uint8"};
  if (op.encoding != Encoding::kBitmask) encoded.gap_type = gap_type(positions);
  encoded.positions = positions.data;
  encoded.position_count = positions.size();
  return encoded;
}

// A session keeps constants for as long as it lives, but of those that it mapped from a file nothing need stay in memory.
template <class T, class Factory>
std::unique_ptr<Product> pack(const Encoded& encoded, Epilogue epilogue, Factory make) {
  Weights<T> w;
  if (std::string wrong = w.read(encoded); !wrong.empty()) throw Failure{wrong};
  const auto let_go_of_all = [&] {
    let_go(encoded.positions, encoded.position_bytes());
    let_go(encoded.values, encoded.count * static_cast<int64_t>(sizeof(T)));
  };
  if (w.mostly_there() == nullptr) let_go_of_all();  // columns are a copy
  std::unique_ptr<Product> product = make(w, std::move(epilogue));
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
  int64_t k, n;
  size_t residual_at;  // 0: none
};

std::unique_ptr<Kernel> make_kernel(const Operator& op, const OrtKernelInfo* info) {
  const Encoded encoded = read_encoded(op, info);
  const size_t bias_at = op.bias_at();
  Epilogue epilogue;
  epilogue.activation = op.activation;
  epilogue.bias = floats(constant(info, bias_at, "bias", ort::kFloat, encoded.n));
  if (op.integer()) epilogue.scale = floats(constant(info, bias_at - 1, "scale", ort::kFloat, encoded.n));
  const KernelInfo& kernel = kernel_for(op.format);
  std::unique_ptr<Product> product;
  switch (op.format) {
    case Format::kInt8: product = pack<int8_t>(encoded, std::move(epilogue), kernel.make_int8); break;
    case Format::kBf16: product = pack<uint16_t>(encoded, std::move(epilogue), kernel.make_bf16); break;
    case Format::kColumns: product = columns(encoded, std::move(epilogue), kernel.make_columns); break;
    case Format::kRows:
    case Format::kRowsBf16: product = all_rows(encoded, std::move(epilogue), kernel.make_rows); break;
    default: product = pack<float>(encoded, std::move(epilogue), kernel.make_fp32);
  }
  return std::make_unique<Kernel>(Kernel{std::move(product), encoded.k, encoded.n, op.residual ? op.residual_at() : 0});
}

// onnxruntime's own intra-op threads.
class OrtPool final : public Pool {
 public:
  explicit OrtPool(const OrtKernelContext* context) : context_(context) {}
  void parallel(int64_t count, Task task, void* argument) const override {
    if (count == 1) return task(argument, 0);
    if (count < 1) return;
    check(ort::KernelContext_ParallelFor(g_api)(context_, task, static_cast<size_t>(count), 0, argument), "run tasks");
  }

 private:
  const OrtKernelContext* context_;
};

void input(OrtKernelContext* context, size_t index, Tensor* out) {
  const OrtValue* value = nullptr;
  check(ort::KernelContext_GetInput(g_api)(context, index, &value), "give an input");
  read(value, out);
}

std::string text(const Dimensions& dimensions) {
  std::string out;
  for (const int64_t d : dimensions) out += (out.empty() ? "[" : ", ") + std::to_string(d);
  return out.empty() ? "[]" : out + "]";
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

// Shapes stand in vectors that a thread keeps, so that the next run allocates nothing.
void compute(const Kernel& kernel, OrtKernelContext* context) {
  static thread_local Tensor x;
  static thread_local Dimensions dimensions;
  input(context, 0, &x);
  if (x.dimensions.empty() || x.dimensions.back() != kernel.k) {
    const auto last = x.dimensions.empty() ? std::string("no") : std::to_string(x.dimensions.back());
    throw Failure{"ai.sparsify: X has " + last + " inputs in its last dimension, the weight has " +
                  std::to_string(kernel.k)};
  }
  dimensions = x.dimensions;
  dimensions.back() = kernel.n;
  const float* residual = residual_for(kernel, context, dimensions);
  OrtValue* output = nullptr;
  check(ort::KernelContext_GetOutput(g_api)(context, 0, dimensions.data(), dimensions.size(), &output),
        "give the output");
  void* y = nullptr;
  check(ort::GetTensorMutableData(g_api)(output, &y), "give the output's data");
  kernel.product->run(static_cast<const float*>(x.data), x.size() / kernel.k, residual, static_cast<float*>(y),
                      OrtPool(context));
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
  return guarded([&] { compute(*static_cast<const Kernel*>(kernel), context); });
}

void destroy_kernel(void* kernel) { delete static_cast<Kernel*>(kernel); }

int input_type(const OrtCustomOp* op, size_t index) {
  const Operator& o = of(op);
  const size_t at = o.values_at();
  if (index == at) return o.value_type();
  if (index == at + 1) return ort::kInt64;
  if (index == 0 || index > at + 1) return ort::kFloat;
  if (index == 2 || o.encoding == Encoding::kBitmask) return ort::kUint8;
  return ort::kUndefined;  // gaps: one of three types
}

Operator make_operator(Format format, Encoding encoding, Activation activation, bool residual) {
  static const char* const kFormats[] = {"", "Int8", "", "Bf16", "", "Bf16"};
  static const char* const kEncodings[] = {"", "Delta", "Columns", "Rows"};
  static const char* const kActivations[] = {"", "Relu", "Gelu", "GeluTanh", "Silu", "Sigmoid", "Tanh"};
  Operator op{};
  op.name = std::string("SparseMatMul") + kFormats[static_cast<int>(format)] + kEncodings[static_cast<int>(encoding)] +
            kActivations[static_cast<int>(activation)] + (residual ? "Add" : "");
  op.format = format;
  op.encoding = encoding;
  op.activation = activation;
  op.residual = residual;
  op.ort.version = ort::kOpVersion;
  op.ort.GetName = [](const OrtCustomOp* o) { return of(o).name.c_str(); };
  op.ort.GetExecutionProviderType = [](const OrtCustomOp*) { return static_cast<const char*>(nullptr); };
  op.ort.GetInputType = input_type;
  op.ort.GetInputTypeCount = [](const OrtCustomOp* o) { return of(o).input_count(); };
  op.ort.GetOutputType = [](const OrtCustomOp*, size_t) { return static_cast<int>(ort::kFloat); };
  op.ort.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  op.ort.KernelDestroy = destroy_kernel;
  op.ort.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return 0; };   // required
  op.ort.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return 0; };  // required
  op.ort.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };       // the default allocator's
  op.ort.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  op.ort.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.ort.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.ort.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.ort.CreateKernelV2 = create_kernel;
  op.ort.KernelComputeV2 = compute_kernel;
  return op;
}

const std::vector<Operator>& operators() {
  static const std::vector<Operator> all = [] {
    std::vector<Operator> ops;
    const auto add = [&](Activation activation, bool residual) {
      for (const Format format : {Format::kFp32, Format::kInt8, Format::kBf16}) {
        ops.push_back(make_operator(format, Encoding::kBitmask, activation, residual));
        ops.push_back(make_operator(format, Encoding::kDelta, activation, residual));
      }
      ops.push_back(make_operator(Format::kColumns, Encoding::kColumns, activation, residual));
      ops.push_back(make_operator(Format::kRows, Encoding::kRows, activation, residual));
      ops.push_back(make_operator(Format::kRowsBf16, Encoding::kRows, activation, residual));
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
  return status != nullptr ? status : ort::AddCustomOpDomain(api)(options, domain);
}
