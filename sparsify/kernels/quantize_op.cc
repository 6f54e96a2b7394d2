// X [..., K] -> q uint8 [..., K], scale float [..., 1], zero point uint8 [..., 1], for all int8 products that read X.
#include "quantize_op.h"

#include "dispatch.h"
#include "op_support.h"

namespace sparsify {
namespace {

// Shapes stand in vectors that a thread keeps, so that the next run allocates nothing.
void quantize(Quantize kernel, OrtKernelContext* context) {
  static thread_local Tensor x;
  static thread_local Dimensions dimensions;
  input(context, 0, &x);
  if (x.dimensions.empty() || x.dimensions.back() < 1) {
    throw Failure{"ai.sparsify: X has shape " + text(x.dimensions) + ": there are no rows of inputs"};
  }
  dimensions = x.dimensions;
  auto* q = static_cast<uint8_t*>(output(context, 0, dimensions));
  const int64_t k = dimensions.back();
  dimensions.back() = 1;
  auto* scale = static_cast<float*>(output(context, 1, dimensions));
  auto* zero_point = static_cast<uint8_t*>(output(context, 2, dimensions));
  kernel(static_cast<const float*>(x.data), x.size() / k, k, q, scale, zero_point, OrtPool(context));
}

OrtCustomOp make_op() {
  OrtCustomOp op{};
  set_defaults(&op);
  op.GetName = [](const OrtCustomOp*) { return "DynamicQuantizeRows"; };
  op.GetInputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  op.GetInputType = [](const OrtCustomOp*, size_t) { return static_cast<int>(ort::kFloat); };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{3}; };
  op.GetOutputType = [](const OrtCustomOp*, size_t i) { return static_cast<int>(i == 1 ? ort::kFloat : ort::kUint8); };
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void** out) {
    *out = reinterpret_cast<void*>(kernel_for(Format::kQuantize).quantize);
    return static_cast<OrtStatus*>(nullptr);
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return guarded([&] { quantize(reinterpret_cast<Quantize>(kernel), context); });
  };
  op.KernelDestroy = [](void*) {};
  return op;
}

}  // namespace

const OrtCustomOp* quantize_op() {
  static const OrtCustomOp op = make_op();
  return &op;
}

}  // namespace sparsify
