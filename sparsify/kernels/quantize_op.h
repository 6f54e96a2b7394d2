// DynamicQuantizeRows as an onnxruntime custom op.
#pragma once

#include "ort_api.h"

namespace sparsify {

const OrtCustomOp* quantize_op();

}  // namespace sparsify
