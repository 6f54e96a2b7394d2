#include "rows-inl.h"
#include "vector_avx2.h"

namespace sparsify {

std::unique_ptr<Product> rows_fp32_avx2(RowsWeights w) { return std::make_unique<Rows<Avx2Lanes, float>>(std::move(w)); }
std::unique_ptr<Product> rows_bf16_avx2(RowsWeights w) { return std::make_unique<Rows<Avx2Lanes, uint16_t>>(std::move(w)); }
std::unique_ptr<Product> rows_int8_avx2(RowsWeights w) { return std::make_unique<Rows<Avx2Lanes, int8_t>>(std::move(w)); }

}  // namespace sparsify
