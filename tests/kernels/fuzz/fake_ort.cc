#include "fake_ort.h"

#include <array>
#include <cstring>

struct OrtStatus {
  int code;
};
struct OrtTensorTypeAndShapeInfo {
  const OrtValue* value;
};

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions*, const OrtApiBase*);

namespace sparsify::fake {
namespace {

std::vector<const OrtCustomOp*> g_operators;

template <class F>
void* pointer(F* function) {
  return reinterpret_cast<void*>(function);
}

OrtStatus* create_status(int code, const char* message) {
  if (message == nullptr || std::strlen(message) == 0) __builtin_trap();  // a refusal says why
  return new OrtStatus{code};
}

OrtStatus* add_operator(OrtCustomOpDomain*, const OrtCustomOp* op) {
  g_operators.push_back(op);
  return nullptr;
}

OrtStatus* dimensions_of(const OrtTensorTypeAndShapeInfo* info, int64_t* out, size_t count) {
  const std::vector<int64_t>& dimensions = info->value->dimensions;
  for (size_t i = 0; i < count; ++i) out[i] = dimensions.at(i);
  return nullptr;
}

OrtStatus* input_of(const OrtKernelContext* context, size_t index, const OrtValue** out) {
  *out = &context->info->inputs.at(index);
  return nullptr;
}

OrtStatus* output_of(OrtKernelContext* context, size_t index, const int64_t* dimensions, size_t count, OrtValue** out) {
  context->outputs[index] = make_value(context->op->GetOutputType(context->op, index), {dimensions, dimensions + count});
  *out = &context->outputs[index];
  return nullptr;
}

OrtStatus* node_name(const OrtKernelInfo*, char* out, size_t* size) {
  static const char kName[] = "node";
  if (out != nullptr) std::memcpy(out, kName, sizeof kName);
  *size = sizeof kName;
  return nullptr;
}

OrtStatus* constant_input(const OrtKernelInfo* info, size_t index, int* is_constant, const OrtValue** out) {
  *is_constant = info->constant.at(index);
  *out = *is_constant ? &info->inputs.at(index) : nullptr;
  return nullptr;
}

OrtStatus* parallel(const OrtKernelContext*, void (*task)(void*, size_t), size_t total, size_t, void* argument) {
  for (size_t i = total; i > 0; --i) task(argument, i - 1);  // no kernel may lean on the order
  return nullptr;
}

const OrtApi* api(uint32_t) {
  static std::array<void*, ort::kKernelContext_ParallelFor + 1> table = [] {
    std::array<void*, ort::kKernelContext_ParallelFor + 1> t{};
    t[ort::kCreateStatus] = pointer(create_status);
    t[ort::kReleaseStatus] = pointer(release);
    t[ort::kCreateCustomOpDomain] =
        pointer(+[](const char*, OrtCustomOpDomain**) { return static_cast<OrtStatus*>(nullptr); });
    t[ort::kCustomOpDomain_Add] = pointer(add_operator);
    t[ort::kAddCustomOpDomain] =
        pointer(+[](OrtSessionOptions*, OrtCustomOpDomain*) { return static_cast<OrtStatus*>(nullptr); });
    t[ort::kGetTensorMutableData] = pointer(+[](OrtValue* value, void** out) {
      *out = value->bytes.get();
      return static_cast<OrtStatus*>(nullptr);
    });
    t[ort::kGetTensorElementType] = pointer(+[](const OrtTensorTypeAndShapeInfo* info, int* out) {
      *out = info->value->type;
      return static_cast<OrtStatus*>(nullptr);
    });
    t[ort::kGetDimensionsCount] = pointer(+[](const OrtTensorTypeAndShapeInfo* info, size_t* out) {
      *out = info->value->dimensions.size();
      return static_cast<OrtStatus*>(nullptr);
    });
    t[ort::kGetDimensions] = pointer(dimensions_of);
    t[ort::kGetTensorTypeAndShape] = pointer(+[](const OrtValue* value, OrtTensorTypeAndShapeInfo** out) {
      *out = new OrtTensorTypeAndShapeInfo{value};
      return static_cast<OrtStatus*>(nullptr);
    });
    t[ort::kReleaseTensorTypeAndShapeInfo] = pointer(+[](OrtTensorTypeAndShapeInfo* info) { delete info; });
    t[ort::kKernelContext_GetInput] = pointer(input_of);
    t[ort::kKernelContext_GetOutput] = pointer(output_of);
    t[ort::kKernelInfo_GetNodeName] = pointer(node_name);
    t[ort::kKernelInfoGetConstantInput_tensor] = pointer(constant_input);
    t[ort::kKernelContext_ParallelFor] = pointer(parallel);
    return t;
  }();
  return reinterpret_cast<const OrtApi*>(table.data());
}

}  // namespace

int64_t bytes_of(int type, const std::vector<int64_t>& dimensions) {
  int64_t size = type == ort::kInt64 ? 8 : type == ort::kFloat || type == ort::kInt32 ? 4 : 1;
  if (type == ort::kUint16 || type == ort::kBfloat16) size = 2;
  for (const int64_t d : dimensions) size *= d;
  return size;
}

OrtValue make_value(int type, std::vector<int64_t> dimensions) {
  const auto size = static_cast<size_t>(bytes_of(type, dimensions));
  return {type, std::move(dimensions), std::unique_ptr<unsigned char[]>(new unsigned char[size]())};
}

void release(OrtStatus* status) { delete status; }

const std::vector<const OrtCustomOp*>& operators() {
  if (g_operators.empty()) {
    const OrtApiBase base{api, nullptr};
    RegisterCustomOps(nullptr, &base);
  }
  return g_operators;
}

}  // namespace sparsify::fake
