#include "quantize_avx512.h"
#include "tasks.h"

namespace sparsify {

void quantize_avx512(const float* x, int64_t rows, int64_t k, uint8_t* q, float* scale, uint8_t* zero_point,
                     const Pool& pool) {
  const int64_t some = rows_of_task(k);
  pool.each((rows + some - 1) / some, [&](int64_t task) {
    quantize_rows_avx512(x, task * some, std::min((task + 1) * some, rows), k, k, k, q, [&](int64_t m, const RowScale& row) {
      scale[m] = row.scale;
      zero_point[m] = static_cast<uint8_t>(row.zero_point);
    });
  });
}

}  // namespace sparsify
