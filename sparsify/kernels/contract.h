// The contract between the packed product kernels and everything around them.
//
//   Y[M,N] = act(X[M,K] W[K,N] + bias[N]) + residual                    Fp32, Columns and Rows products
//   Y[M,N] = act(bf16(X)[M,K] W[K,N] + bias[N]) + residual              Bf16 products; bf16(): to nearest even
//   Y[M,N] = act(((q w - z sum(w)) * s) * scale + bias) + residual      Int8 products; q, z, s per row of X, see quantize.h
//   Y[M,N] = act((X w) * scale + bias) + residual                       Int8 rows; w int8, X as it is
//
// A kernel is a class derived from Product that packs W into the layout of one ISA when it is made, and
// multiplies rows by it in run(). What it means is written once, in sparsify/ops/bodies.py. A kernel that is not
// listed in kernels.inc does not exist: dispatch, tests and benchmarks read that list.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "scratch.h"

namespace sparsify {

enum class Activation { kNone, kRelu, kGelu, kGeluTanh, kSilu, kSigmoid, kTanh };

// ISA paths. Each architecture has a ladder of its own, lowest first; scalar is the foot of both. A path also runs
// the kernels of lower paths of its ladder, as far as this CPU has their instructions (Zen 4 runs avx512_vbmi and
// has no AVX-VNNI: avx2_vnni is no path of it; Cooper Lake has bf16 and no VBMI). Which instructions each path needs: dispatch.cc.
enum class Isa { kScalar, kNeon, kNeonDotprod, kAvx2, kAvx2Vnni, kAvx512, kAvx512Vnni, kAvx512Vbmi, kAvx512Bf16 };

enum class Format { kFp32, kInt8, kColumns, kBf16, kRows, kRowsBf16, kRowsInt8, kQuantize };

// W in compressed sparse columns: rows ascend within a column; fillers of the encoding are gone.
template <class T>
struct Csc {
  int64_t k = 0, n = 0;
  std::vector<int64_t> start;  // [n + 1]
  Numbers<int32_t> row;        // [nnz], 0 <= row < k
  Numbers<T> value;            // [nnz]; bfloat16 are uint16_t, their bits
  int64_t nnz() const { return static_cast<int64_t>(row.size()); }
};

// What follows the product. scale is empty where weights are float.
struct Epilogue {
  std::vector<float> scale;  // [N]
  std::vector<float> bias;   // [N]
  Activation activation = Activation::kNone;
};

// Processors that this process may use.
int64_t cores();

// Runs bodies for every i of a range, in any order, on any threads. onnxruntime splits a range into equal parts, one a
// thread, before it starts: here a thread that is done with its part goes on with others', so that one that started late
// or was interrupted, or an odd number of tasks, costs at most one of them.
class Pool {
 public:
  using Task = void (*)(void* argument, size_t index);
  virtual ~Pool() = default;
  // task(argument, i) for every i in [0, count), in any order, on any threads.
  virtual void parallel(int64_t count, Task task, void* argument) const = 0;
  // Whether the calling thread has long done all tasks itself: a hint.
  virtual bool alone() const { return false; }

  // body(i) for i in [0, count). The thread that comes first begins with the first part of them, and so on: run after run,
  // and operator after operator, it finds what it wrote.
  template <class F>
  void each(int64_t count, F&& body) const {
    constexpr int64_t kMostParts = 16;
    struct alignas(kAlignment) Part {
      std::atomic<int64_t> next;
      int64_t end;
    };
    const int64_t parts = std::min({cores(), count, kMostParts});
    Part part[kMostParts];
    for (int64_t p = 0; p < parts; ++p) {
      part[p].next.store(count * p / parts, std::memory_order_relaxed);
      part[p].end = count * (p + 1) / parts;
    }
    std::atomic<int64_t> arrived{0};
    auto work = [&] {
      const int64_t mine = arrived++;
      for (int64_t p = 0; p < parts; ++p) {
        Part& from = part[(mine + p) % parts];
        if (from.next.load(std::memory_order_relaxed) >= from.end) continue;
        for (int64_t i = from.next++; i < from.end; i = from.next++) body(i);
      }
    };
    // A call does all that is left: more calls than threads are for naught.
    const int64_t calls = std::min(count, 4 * cores());
    parallel(calls, [](void* f, size_t) { (*static_cast<decltype(work)*>(f))(); }, &work);
  }

  // before(i) for i in [0, first), all of them done when the first of after(i) for i in [0, second) starts: one region
  // for both, so that threads are woken once. A thread waits only for tasks that running threads have taken. No body
  // throws.
  template <class F, class G>
  void each_then_each(int64_t first, F&& before, int64_t second, G&& after) const {
    std::atomic<int64_t> taken{0}, done{0};
    auto work = [&] {
      for (int64_t i = taken++; i < first + second; i = taken++) {
        if (i < first) {
          before(i);
          done.fetch_add(1, std::memory_order_release);
          continue;
        }
        while (done.load(std::memory_order_acquire) < first) std::this_thread::yield();
        after(i - first);
      }
    };
    parallel(std::max(first, second), [](void* f, size_t) { (*static_cast<decltype(work)*>(f))(); }, &work);
  }
};

class Product {
 public:
  virtual ~Product() = default;
  // x [rows, K], residual [rows, N] or null for none, and y [rows, N], row-major, any alignment, y overlapping neither;
  // rows >= 0. Thread-safe.
  // Allocates nothing but the growth of the calling thread's scratch arena.
  virtual void run(const float* x, int64_t rows, const float* residual, float* y, const Pool& pool) const = 0;
  // Bytes of packed weights held.
  virtual int64_t bytes() const = 0;
};

// Rows that were quantised before, see quantize.h: q [rows, K], row-major, scale and zero point [rows]; any alignment.
struct Quantized {
  const uint8_t* q;
  const float* scale;
  const uint8_t* zero_point;
};

class Int8Product : public Product {
 public:
  using Product::run;
  // As above, of rows that are quantised already: what they were quantised from gives the same y, to the bit.
  virtual void run(const Quantized& x, int64_t rows, const float* residual, float* y, const Pool& pool) const = 0;
};

template <class T>
class Weights;  // weights.h
struct ColumnsWeights;  // columns_weights.h
struct RowsWeights;     // rows_weights.h

using Fp32Factory = std::unique_ptr<Product> (*)(const Weights<float>&, Epilogue);
using Int8Factory = std::unique_ptr<Int8Product> (*)(const Weights<int8_t>&, Epilogue);
using Bf16Factory = std::unique_ptr<Product> (*)(const Weights<uint16_t>&, Epilogue);
using ColumnsFactory = std::unique_ptr<Product> (*)(ColumnsWeights);
using RowsFactory = std::unique_ptr<Product> (*)(RowsWeights);
// x [rows, K] -> q [rows, K], scale [rows], zero_point [rows]: what every int8 kernel makes of x before it multiplies.
// K >= 1; any alignment, and no output overlaps another or x.
using Quantize = void (*)(const float* x, int64_t rows, int64_t k, uint8_t* q, float* scale, uint8_t* zero_point,
                          const Pool& pool);

#define SPARSIFY_FP32_KERNEL(isa, factory) std::unique_ptr<Product> factory(const Weights<float>&, Epilogue);
#define SPARSIFY_INT8_KERNEL(isa, factory) std::unique_ptr<Int8Product> factory(const Weights<int8_t>&, Epilogue);
#define SPARSIFY_COLUMNS_KERNEL(isa, factory) std::unique_ptr<Product> factory(ColumnsWeights);
#define SPARSIFY_BF16_KERNEL(isa, factory) std::unique_ptr<Product> factory(const Weights<uint16_t>&, Epilogue);
#define SPARSIFY_ROWS_KERNEL(isa, format, factory) std::unique_ptr<Product> factory(RowsWeights);
#define SPARSIFY_QUANTIZE_KERNEL(isa, function) \
  void function(const float*, int64_t, int64_t, uint8_t*, float*, uint8_t*, const Pool&);
#include "kernels.inc"
#undef SPARSIFY_FP32_KERNEL
#undef SPARSIFY_INT8_KERNEL
#undef SPARSIFY_COLUMNS_KERNEL
#undef SPARSIFY_BF16_KERNEL
#undef SPARSIFY_ROWS_KERNEL
#undef SPARSIFY_QUANTIZE_KERNEL

}  // namespace sparsify
