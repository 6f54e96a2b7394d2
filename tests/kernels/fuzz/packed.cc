// libFuzzer target: the packed inputs of every operator, from the session's call that packs them to the one that
// multiplies. What the bytes say is either refused with a sentence or multiplied by every kernel of the format,
// without leaving memory and, in int8, with the same bits from all of them.
#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "dispatch.h"
#include "fake_ort.h"
#include "weights.h"

namespace sparsify {
namespace {

constexpr int64_t kMostColumns = 200, kMostInputs = 400, kMostRows = 12;

// Takes numbers off the front of the input; zeros when there are no more.
class Reader {
 public:
  Reader(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  int64_t number(int bytes) {
    uint64_t value = 0;
    take(reinterpret_cast<unsigned char*>(&value), bytes);
    return static_cast<int64_t>(value);
  }
  int64_t below(int64_t limit) { return number(limit > 256 ? 2 : 1) % limit; }
  void take(unsigned char* out, int64_t bytes) {
    const auto count = std::min(left_, static_cast<size_t>(bytes));
    if (count > 0) std::memcpy(out, data_, count);
    data_ += count;
    left_ -= count;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

class SerialPool final : public Pool {
 public:
  void parallel(int64_t count, Task task, void* argument) const override {
    for (int64_t i = 0; i < count; ++i) task(argument, static_cast<size_t>(i));
  }
};

struct Case {
  OrtKernelInfo info;
  int64_t k, n, rows;
};

bool has(const OrtCustomOp& op, const char* part) { return std::string(op.GetName(&op)).find(part) != std::string::npos; }

// Constant inputs come after these: X, or its quantised rows, scales and zero points.
int64_t constants_at(const OrtCustomOp& op) { return has(op, "Integer") ? 3 : 1; }

// Sets all bits of the mask before the values, and values of all kinds.
void fill(const Case& made, size_t values_at, int64_t twist) {
  const OrtValue &bits = made.info.inputs[values_at - 1], &values = made.info.inputs[values_at];
  const int64_t weights = made.k * made.n, size = fake::bytes_of(values.type, values.dimensions);
  std::fill_n(bits.bytes.get(), weights / 8, uint8_t{255});
  if (weights % 8 != 0) bits.bytes.get()[weights / 8] = static_cast<uint8_t>((1 << weights % 8) - 1);
  for (int64_t i = 0; i < size; ++i) values.bytes.get()[i] = static_cast<uint8_t>(twist + i * (twist | 1) / 3);
}

// The sizes that a well-formed operator of that name would have, with one input in `bend` bent out of shape.
Case read_case(Reader& in, const OrtCustomOp& op) {
  const std::string name = op.GetName(&op);
  const bool delta = name.find("Delta") != std::string::npos, columns = name.find("Columns") != std::string::npos;
  Case made{{}, 1 + in.below(kMostInputs), 1 + in.below(kMostColumns), in.below(kMostRows)};
  const int64_t k = made.k, n = made.n, bend = in.below(64), twist = in.below(256);
  const int64_t gap_type = std::array<int64_t, 3>{ort::kUint8, ort::kUint16, ort::kInt32}[in.below(3)];
  const bool quantize = has(op, "Quantize");
  const bool rows = !quantize && name.find("Rows") != std::string::npos, bitmask = !delta && !columns;
  const int64_t first = constants_at(op);
  // No weight is missing: hardly any mutation comes to that.
  const bool full = bitmask && !rows && !quantize && bend >= 56 && bend < 60;
  const int64_t count = rows || full ? k * n : in.below(std::min<int64_t>(k * n, 1 << 12) + 1);
  const bool residual = name.size() > 3 && name.compare(name.size() - 3, 3, "Add") == 0;
  const auto input_count = static_cast<int64_t>(op.GetInputTypeCount(&op)), residual_at = residual ? input_count - 1 : -1;
  const auto add = [&](int type, std::vector<int64_t> dimensions) {
    const auto at = static_cast<int64_t>(made.info.inputs.size());
    bool constant = true;
    if (at == bend) {
      constant = twist != 0;
      // onnxruntime holds activations and the residual to their types itself: they are no constants that we could look at.
      const bool looked_at = at >= first && (at != residual_at);
      if (twist % 4 == 1 && looked_at) type = std::array<int, 6>{1, 2, 3, 4, 6, 16}[twist % 6];
      if (twist % 4 == 2) dimensions.assign(1 + twist % 3, twist / 8);
      if (twist % 4 == 3) dimensions.clear();
    }
    made.info.inputs.push_back(fake::make_value(type, std::move(dimensions)));
    made.info.constant.push_back(constant);
  };
  const auto add_constants = [&] {
    if (columns) add(ort::kInt32, {count});
    if (!rows) add(bitmask ? static_cast<int>(ort::kUint8) : static_cast<int>(gap_type), {bitmask ? (k * n + 7) / 8 : count});
    const auto values_at = made.info.inputs.size();
    add(op.GetInputType(&op, values_at), {count});
    add(ort::kInt64, {2});
    for (int64_t at = static_cast<int64_t>(values_at) + 2; at < input_count; ++at) {
      add(ort::kFloat, at == residual_at ? std::vector<int64_t>{made.rows, n} : std::vector<int64_t>{n});
    }
    for (size_t i = 1; i < made.info.inputs.size(); ++i) {
      OrtValue& value = made.info.inputs[i];
      if (i != values_at + 1) in.take(value.bytes.get(), fake::bytes_of(value.type, value.dimensions));
    }
    if (full) fill(made, values_at, twist);
    OrtValue& shape = made.info.inputs[values_at + 1];
    if (fake::bytes_of(shape.type, shape.dimensions) == 16) {
      const int64_t given[2] = {bend == 63 ? in.number(8) : k, bend == 62 ? in.number(8) : n};
      std::memcpy(shape.bytes.get(), given, sizeof given);
    }
  };
  add(op.GetInputType(&op, 0), {made.rows, k});
  for (int64_t at = 1; at < first; ++at) add(op.GetInputType(&op, static_cast<size_t>(at)), {made.rows, 1});
  if (!quantize) add_constants();
  OrtValue& x = made.info.inputs[0];
  auto* inputs = reinterpret_cast<float*>(x.bytes.get());
  if (x.type != ort::kFloat) {
    in.take(x.bytes.get(), fake::bytes_of(x.type, x.dimensions));
    return made;
  }
  const int64_t numbers = fake::bytes_of(x.type, x.dimensions) / 4;
  for (int64_t i = 0; i < numbers; ++i) inputs[i] = static_cast<float>(static_cast<int8_t>(in.number(1))) / 16;
  return made;
}

// Sums of integers are the same bits on every path (docs/kernels.md).
void compare_int8(const OrtCustomOp& op, const Case& made) {
  if (!(has(op, "Int8") || has(op, "Integer")) || has(op, "Rows")) return;  // those sum floats
  const auto& inputs = made.info.inputs;
  const auto first_constant = static_cast<size_t>(constants_at(op));
  const OrtValue &positions = inputs[first_constant], &values = inputs[first_constant + 1];
  Encoded encoded{has(op, "Delta") ? Encoding::kDelta : Encoding::kBitmask, made.k, made.n};
  const auto size = [](const OrtValue& v) { return fake::bytes_of(v.type, v.dimensions); };
  encoded.positions = positions.bytes.get();
  const int type = positions.type;
  encoded.gap_type = type == ort::kUint8 ? GapType::kUint8 : type == ort::kUint16 ? GapType::kUint16 : GapType::kInt32;
  encoded.position_count = size(positions) / fake::bytes_of(type, {1});
  encoded.values = values.bytes.get();
  encoded.count = size(values);
  Weights<int8_t> w;
  if (!w.read(encoded).empty()) return;
  Epilogue epilogue;
  epilogue.bias.assign(static_cast<size_t>(made.n), 0.25f);
  epilogue.scale.assign(static_cast<size_t>(made.n), 0.5f);
  const bool quantized = inputs[0].type == ort::kUint8;
  const int64_t rows = size(inputs[0]) / (quantized ? 1 : 4) / made.k;  // X may have been bent, and still fit
  std::vector<float> first, y(static_cast<size_t>(rows * made.n));
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.format != Format::kInt8 || !can_run(kernel.isa)) continue;
    const Weights<int8_t> own = w;  // a kernel that asks for columns leaves no bitmask to the next
    const auto product = kernel.make_int8(own, epilogue);
    if (quantized) {
      const auto* scale = reinterpret_cast<const float*>(inputs[1].bytes.get());
      product->run(Quantized{inputs[0].bytes.get(), scale, inputs[2].bytes.get()}, rows, nullptr, y.data(), SerialPool());
    } else {
      product->run(reinterpret_cast<const float*>(inputs[0].bytes.get()), rows, nullptr, y.data(), SerialPool());
    }
    if (first.empty()) first = y;
    if (!y.empty() && std::memcmp(first.data(), y.data(), 4 * y.size()) != 0) __builtin_trap();
  }
}

}  // namespace
}  // namespace sparsify

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sparsify;
  Reader in(data, size);
  const auto& operators = fake::operators();
  const OrtCustomOp& op = *operators[static_cast<size_t>(in.below(static_cast<int64_t>(operators.size())))];
  const Case made = read_case(in, op);
  void* kernel = nullptr;
  OrtStatus* status = op.CreateKernelV2(&op, nullptr, &made.info, &kernel);
  if (status != nullptr) {
    if (kernel != nullptr) __builtin_trap();
    fake::release(status);
    return 0;
  }
  OrtKernelContext context{&op, &made.info, {}};
  status = op.KernelComputeV2(kernel, &context);
  const bool ran = status == nullptr;
  if (!ran) fake::release(status);
  op.KernelDestroy(kernel);
  if (ran) compare_int8(op, made);
  return 0;
}
