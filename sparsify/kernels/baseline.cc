// Functions of the standard library and of contract.h that sources of several ISAs may leave for the linker to merge.
// It keeps the first copy of each that it meets. Linked first and compiled for any CPU, this file provides that copy:
// otherwise packing on an old CPU could run into, say, a vector<float>::resize made of AVX-512 instructions.
// tests/kernels/test_driver.py checks that no object for a wider ISA brings a function that is missing here.
#include <memory>
#include <vector>

#include "contract.h"
#include "scratch.h"

template class std::vector<float>;
template class std::vector<int32_t>;
template class std::vector<int64_t>;
template class std::vector<uint16_t>;
template class std::vector<uint8_t>;
template class std::unique_ptr<float[], sparsify::Free>;
template class std::unique_ptr<int32_t[], sparsify::Free>;
template class std::unique_ptr<uint16_t[], sparsify::Free>;
template class std::unique_ptr<uint8_t[], sparsify::Free>;

namespace sparsify {

// Never called: uses what has no explicit instantiation.
void instantiate(Epilogue* epilogue, const Epilogue* other) {
  *epilogue = *other;
  *epilogue = Epilogue(*other);
}

}  // namespace sparsify
