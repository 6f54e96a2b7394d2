#include "panel-inl.h"
#include "vector_neon.h"

namespace sparsify {

std::unique_ptr<Product> fp32_panel_neon(const Csc<float>& w, Epilogue epilogue) {
  return std::make_unique<Panel<NeonLanes, false>>(w, epilogue);
}

}  // namespace sparsify
