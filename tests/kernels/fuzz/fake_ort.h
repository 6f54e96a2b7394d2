// As much of onnxruntime as the operators call, around tensors of which nothing is checked: what a hostile model and
// an onnxruntime that lets everything through would bring.
#pragma once

#include <memory>
#include <vector>

#include "ort_api.h"

// Its buffer is exactly as long as it says, on the heap: a sanitizer sees a byte read past it.
struct OrtValue {
  int type = 0;
  std::vector<int64_t> dimensions;
  std::unique_ptr<unsigned char[]> bytes;
};

struct OrtKernelInfo {
  std::vector<OrtValue> inputs;
  std::vector<bool> constant;
};

struct OrtKernelContext {
  const OrtCustomOp* op;
  const OrtKernelInfo* info;
  OrtValue outputs[3];
};

namespace sparsify::fake {

int64_t bytes_of(int type, const std::vector<int64_t>& dimensions);

OrtValue make_value(int type, std::vector<int64_t> dimensions);

void release(OrtStatus* status);

// What RegisterCustomOps registered, in order.
const std::vector<const OrtCustomOp*>& operators();

}  // namespace sparsify::fake
