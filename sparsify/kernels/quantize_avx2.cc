#include "quantize-inl.h"
#include "vector_avx2.h"

namespace sparsify {

void quantize_avx2(const float* x, int64_t rows, int64_t k, uint8_t* q, float* scale, uint8_t* zero_point, const Pool& pool) {
  quantize<Avx2Lanes>(x, rows, k, q, scale, zero_point, pool);
}

}  // namespace sparsify
