// The reference of every kernel that quantises. Compiled without auto-vectorisation.
#include "quantize_scalar.h"

namespace sparsify {

void quantize_scalar(const float* x, int64_t rows, int64_t k, uint8_t* q, float* scale, uint8_t* zero_point,
                     const Pool& pool) {
  pool.each(rows, [&](int64_t m) {
    const RowScale row = row_scale(range_of(x + m * k, k));
    fill(x + m * k, k, row, q + m * k);
    scale[m] = row.scale;
    zero_point[m] = static_cast<uint8_t>(row.zero_point);
  });
}

}  // namespace sparsify
