#include "rows-inl.h"
#include "vector_avx512.h"

namespace sparsify {

std::unique_ptr<Product> rows_fp32_avx512(RowsWeights w) { return std::make_unique<Rows<Avx512Lanes, float>>(std::move(w)); }
std::unique_ptr<Product> rows_bf16_avx512(RowsWeights w) { return std::make_unique<Rows<Avx512Lanes, uint16_t>>(std::move(w)); }
std::unique_ptr<Product> rows_int8_avx512(RowsWeights w) { return std::make_unique<Rows<Avx512Lanes, int8_t>>(std::move(w)); }

}  // namespace sparsify
