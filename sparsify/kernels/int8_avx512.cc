#include "int8_avx512-inl.h"
#include "int8_choice-inl.h"

namespace sparsify {

std::unique_ptr<Int8Product> int8_avx512(const Weights<int8_t>& w, Epilogue epilogue) {
  return std::make_unique<Int8Choice<Int8Permute<Int8Avx512<false>>, Avx512Lanes>>(w, epilogue);
}

}  // namespace sparsify
