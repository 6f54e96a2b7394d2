#include "columns-inl.h"
#include "vector_avx2.h"

namespace sparsify {

std::unique_ptr<Product> columns_avx2(ColumnsWeights w) { return make_columns<Avx2Lanes>(std::move(w)); }

}  // namespace sparsify
