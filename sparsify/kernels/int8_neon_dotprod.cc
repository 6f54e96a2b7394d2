#include "int8_neon-inl.h"
#include "int8_choice-inl.h"

namespace sparsify {

std::unique_ptr<Int8Product> int8_neon_dotprod(const Weights<int8_t>& w, Epilogue epilogue) {
  return std::make_unique<Int8Choice<Int8Permute<Int8Neon<true>>, NeonLanes>>(w, epilogue);
}

}  // namespace sparsify
