// The part of onnxruntime's C ABI that we use, declared from its documented, append-only layout: no header of
// onnxruntime is in its Python package, and the ABI is stable. OrtApi is a table of function pointers; a slot is its
// index there. `tests/kernels/test_ort_api.py` compares all of it with an official header where one is at hand.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct OrtStatus;
struct OrtValue;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtTensorTypeAndShapeInfo;
struct OrtApi;

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// Fields up to those that version 16 knows, onnxruntime 1.16: the first whose kernels report errors by status.
struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void*, OrtKernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void**);
  OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
  // Not read at version 16; here so that the struct is as long as any onnxruntime may look.
  void* later[7];
};

}  // extern "C"

namespace sparsify::ort {

constexpr uint32_t kApiVersion = 17;  // onnxruntime 1.17: the first with KernelContext_ParallelFor
constexpr uint32_t kOpVersion = 16;

enum ElementType { kUndefined = 0, kFloat = 1, kUint8 = 2, kInt8 = 3, kUint16 = 4, kInt32 = 6, kInt64 = 7, kBfloat16 = 16 };
enum ErrorCode { kFail = 1, kInvalidArgument = 2 };

// ORT_SLOT(name, index in OrtApi, result, arguments...)
#define ORT_SLOTS(ORT_SLOT)                                                                                      \
  ORT_SLOT(CreateStatus, 0, OrtStatus*, int code, const char* message)                                           \
  ORT_SLOT(CreateCustomOpDomain, 26, OrtStatus*, const char* domain, OrtCustomOpDomain** out)                    \
  ORT_SLOT(CustomOpDomain_Add, 27, OrtStatus*, OrtCustomOpDomain*, const OrtCustomOp*)                           \
  ORT_SLOT(AddCustomOpDomain, 28, OrtStatus*, OrtSessionOptions*, OrtCustomOpDomain*)                            \
  ORT_SLOT(GetTensorMutableData, 51, OrtStatus*, OrtValue*, void** out)                                          \
  ORT_SLOT(GetTensorElementType, 60, OrtStatus*, const OrtTensorTypeAndShapeInfo*, int* out)                     \
  ORT_SLOT(GetDimensionsCount, 61, OrtStatus*, const OrtTensorTypeAndShapeInfo*, size_t* out)                    \
  ORT_SLOT(GetDimensions, 62, OrtStatus*, const OrtTensorTypeAndShapeInfo*, int64_t* out, size_t count)          \
  ORT_SLOT(GetTensorTypeAndShape, 65, OrtStatus*, const OrtValue*, OrtTensorTypeAndShapeInfo** out)              \
  ORT_SLOT(KernelContext_GetInput, 90, OrtStatus*, const OrtKernelContext*, size_t index, const OrtValue** out)  \
  ORT_SLOT(KernelContext_GetOutput, 91, OrtStatus*, OrtKernelContext*, size_t index, const int64_t* dimensions,  \
           size_t count, OrtValue** out)                                                                         \
  ORT_SLOT(ReleaseStatus, 93, void, OrtStatus*)                                                                  \
  ORT_SLOT(ReleaseTensorTypeAndShapeInfo, 99, void, OrtTensorTypeAndShapeInfo*)                                  \
  ORT_SLOT(KernelInfo_GetNodeName, 244, OrtStatus*, const OrtKernelInfo*, char* out, size_t* size)               \
  ORT_SLOT(KernelInfoGetConstantInput_tensor, 249, OrtStatus*, const OrtKernelInfo*, size_t index,               \
           int* is_constant, const OrtValue** out)                                                               \
  ORT_SLOT(KernelContext_ParallelFor, 274, OrtStatus*, const OrtKernelContext*, void (*task)(void*, size_t),     \
           size_t total, size_t batches, void* argument)

template <class F>
F* slot(const OrtApi* api, size_t index) {
  return *(reinterpret_cast<F* const*>(api) + index);
}

#define ORT_SLOT(name, index, result, ...)                        \
  constexpr size_t k##name = index;                               \
  inline result (*name(const OrtApi* api))(__VA_ARGS__) {         \
    return slot<result(__VA_ARGS__)>(api, index);                 \
  }
ORT_SLOTS(ORT_SLOT)
#undef ORT_SLOT

}  // namespace sparsify::ort
