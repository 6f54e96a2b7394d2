#include "int8_avx512-inl.h"
#include "int8_permute-inl.h"

namespace sparsify {

std::unique_ptr<Product> int8_permute_avx512(const Csc<int8_t>& w, Epilogue epilogue) {
  return std::make_unique<Int8Permute<Int8Avx512<false>>>(w, epilogue);
}

}  // namespace sparsify
