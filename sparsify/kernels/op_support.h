// What the custom ops share: errors as statuses, tensors of onnxruntime, its threads, and the slots of an op that say the
// same in all of them.
#pragma once

#include <atomic>
#include <cstring>
#include <exception>
#include <functional>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include "contract.h"
#include "ort_api.h"

namespace sparsify {

inline const OrtApi* g_api = nullptr;  // set once, before any op can run

// A message on its way out as a status; nothing of ours crosses the C boundary.
struct Failure {
  std::string what;
};

inline void check(OrtStatus* status, const char* doing) {
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

inline void read(const OrtValue* value, Tensor* out) {
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

inline std::string node_name(const OrtKernelInfo* info) {
  size_t size = 0;
  OrtStatus* status = ort::KernelInfo_GetNodeName(g_api)(info, nullptr, &size);
  if (status != nullptr) ort::ReleaseStatus(g_api)(status);
  std::string name(size, '\0');
  status = ort::KernelInfo_GetNodeName(g_api)(info, name.data(), &size);
  if (status != nullptr) ort::ReleaseStatus(g_api)(status);
  name.resize(std::strlen(name.c_str()));
  return name;
}

// How often in a row an operator's calling thread has done all of its tasks; onnxruntime does not tell how many threads
// a session has.
using RunsAlone = std::atomic<int>;

// onnxruntime's own intra-op threads.
class OrtPool final : public Pool {
 public:
  explicit OrtPool(const OrtKernelContext* context, RunsAlone* runs_alone = nullptr)
      : context_(context), runs_alone_(runs_alone) {}
  void parallel(int64_t count, Task task, void* argument) const override {
    if (count == 1) return task(argument, 0);
    if (count < 1) return;
    Watched watched{task, argument, this_thread()};
    const auto status = ort::KernelContext_ParallelFor(g_api)(context_, run, static_cast<size_t>(count), 0, &watched);
    check(status, "run tasks");
    if (runs_alone_ == nullptr) return;
    const int runs = runs_alone_->load(std::memory_order_relaxed);
    if (watched.helped) {
      runs_alone_->store(0, std::memory_order_relaxed);
    } else if (runs < kLong) {
      runs_alone_->store(runs + 1, std::memory_order_relaxed);
    }
  }
  bool alone() const override {
    return runs_alone_ != nullptr && runs_alone_->load(std::memory_order_relaxed) >= kLong;
  }

 private:
  static constexpr int kLong = 16;  // runs; a thread that is woken late misses a few

  struct Watched {
    Task task;
    void* argument;
    const void* caller;
    std::atomic<bool> helped{false};
  };

  static const void* this_thread() {
    static thread_local const char here = 0;
    return &here;
  }

  static void run(void* argument, size_t index) {
    auto& watched = *static_cast<Watched*>(argument);
    if (this_thread() != watched.caller) watched.helped.store(true, std::memory_order_relaxed);
    watched.task(watched.argument, index);
  }

  const OrtKernelContext* context_;
  RunsAlone* runs_alone_;
};

inline void input(OrtKernelContext* context, size_t index, Tensor* out) {
  const OrtValue* value = nullptr;
  check(ort::KernelContext_GetInput(g_api)(context, index, &value), "give an input");
  read(value, out);
}

inline std::string text(const Dimensions& dimensions) {
  std::string out;
  for (const int64_t d : dimensions) out += (out.empty() ? "[" : ", ") + std::to_string(d);
  return out.empty() ? "[]" : out + "]";
}

// The output of `dimensions`, to be written.
inline void* output(OrtKernelContext* context, size_t index, const Dimensions& dimensions) {
  OrtValue* value = nullptr;
  check(ort::KernelContext_GetOutput(g_api)(context, index, dimensions.data(), dimensions.size(), &value),
        "give an output");
  void* data = nullptr;
  check(ort::GetTensorMutableData(g_api)(value, &data), "give an output's data");
  return data;
}

// All inputs and outputs are required, and lie where the default allocator puts them.
inline void set_defaults(OrtCustomOp* ort) {
  ort->version = ort::kOpVersion;
  ort->GetExecutionProviderType = [](const OrtCustomOp*) { return static_cast<const char*>(nullptr); };
  ort->GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return 0; };   // required
  ort->GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return 0; };  // required
  ort->GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };       // the default allocator's
  ort->GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  ort->GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  ort->GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  ort->GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
}

}  // namespace sparsify
