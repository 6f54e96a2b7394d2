#include "columns-inl.h"
#include "vector_neon.h"

namespace sparsify {

std::unique_ptr<Product> columns_neon(ColumnsWeights w) { return make_columns<NeonLanes>(std::move(w)); }

}  // namespace sparsify
