#include "rows-inl.h"
#include "vector_neon.h"

namespace sparsify {

std::unique_ptr<Product> rows_fp32_neon(RowsWeights w) { return std::make_unique<Rows<NeonLanes, float>>(std::move(w)); }
std::unique_ptr<Product> rows_bf16_neon(RowsWeights w) { return std::make_unique<Rows<NeonLanes, uint16_t>>(std::move(w)); }
std::unique_ptr<Product> rows_int8_neon(RowsWeights w) { return std::make_unique<Rows<NeonLanes, int8_t>>(std::move(w)); }

}  // namespace sparsify
