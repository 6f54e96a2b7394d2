#include "int8_avx2-inl.h"
#include "int8_choice-inl.h"

namespace sparsify {

std::unique_ptr<Int8Product> int8_avx2(const Weights<int8_t>& w, Epilogue epilogue) {
  return std::make_unique<Int8Choice<Int8Permute<Int8Avx2<false>>, Avx2Lanes>>(w, epilogue);
}

}  // namespace sparsify
