#include "panel-inl.h"
#include "vector_avx512.h"

namespace sparsify {

std::unique_ptr<Product> fp32_panel_avx512(const Csc<float>& w, Epilogue epilogue) {
  return std::make_unique<Panel<Avx512Lanes, false>>(w, epilogue);
}

}  // namespace sparsify
