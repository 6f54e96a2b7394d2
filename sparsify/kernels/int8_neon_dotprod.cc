#include "int8_neon-inl.h"
#include "int8_permute-inl.h"

namespace sparsify {

std::unique_ptr<Product> int8_permute_neon_dotprod(const Csc<int8_t>& w, Epilogue epilogue) {
  return std::make_unique<Int8Permute<Int8Neon<true>>>(w, epilogue);
}

}  // namespace sparsify
