#include "columns-inl.h"
#include "vector_avx512.h"

namespace sparsify {

std::unique_ptr<Product> columns_avx512(ColumnsWeights w) { return make_columns<Avx512Lanes>(std::move(w)); }

}  // namespace sparsify
