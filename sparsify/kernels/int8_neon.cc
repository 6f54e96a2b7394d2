#include "int8_neon-inl.h"
#include "int8_permute-inl.h"

namespace sparsify {

std::unique_ptr<Product> int8_permute_neon(const Csc<int8_t>& w, Epilogue epilogue) {
  return std::make_unique<Int8Permute<Int8Neon<false>>>(w, epilogue);
}

}  // namespace sparsify
