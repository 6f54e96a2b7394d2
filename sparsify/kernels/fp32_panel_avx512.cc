#include "panel-inl.h"
#include "vector_avx512.h"
#include "weights.h"

namespace sparsify {

std::unique_ptr<Product> fp32_panel_avx512(const Weights<float>& w, Epilogue epilogue) {
  return std::make_unique<Panel<Avx512Lanes, false>>(w.columns(), epilogue);
}

}  // namespace sparsify
