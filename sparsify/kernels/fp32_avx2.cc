#include "panel-inl.h"
#include "vector_avx2.h"

namespace sparsify {

std::unique_ptr<Product> fp32_panel_avx2(const Csc<float>& w, Epilogue epilogue) {
  return std::make_unique<Panel<Avx2Lanes, false>>(w, epilogue);
}

}  // namespace sparsify
