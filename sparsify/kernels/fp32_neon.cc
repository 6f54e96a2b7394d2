#include "panel-inl.h"
#include "vector_neon.h"
#include "weights.h"

namespace sparsify {

std::unique_ptr<Product> fp32_panel_neon(const Weights<float>& w, Epilogue epilogue) {
  return std::make_unique<Panel<NeonLanes, false>>(w.columns(), epilogue);
}

}  // namespace sparsify
