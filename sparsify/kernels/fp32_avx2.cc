#include "panel-inl.h"
#include "vector_avx2.h"
#include "weights.h"

namespace sparsify {

std::unique_ptr<Product> fp32_panel_avx2(const Weights<float>& w, Epilogue epilogue) {
  return std::make_unique<Panel<Avx2Lanes, false>>(w.columns(), epilogue);
}

}  // namespace sparsify
