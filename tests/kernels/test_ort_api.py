"""Our declaration of onnxruntime's C ABI against an official header, where one is at hand.

Point ONNXRUNTIME_HEADERS at a folder with onnxruntime_c_api.h to run it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sparsify import kernels

HEADERS = os.environ.get("ONNXRUNTIME_HEADERS", "")
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")

pytestmark = [
    pytest.mark.skipif(not HEADERS, reason="ONNXRUNTIME_HEADERS is not set"),
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
]

# The official header is wrapped in a namespace, so that its types and ours can stand in one program.
PROGRAM = """
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <cstdlib>
#include <memory>
namespace official {
#include "onnxruntime_c_api.h"
}
#include "ort_api.h"
#define ORT_SLOT(name, index, ...) \\
  static_assert(offsetof(official::OrtApi, name) == index * sizeof(void*), #name);
ORT_SLOTS(ORT_SLOT)
#define FIELD(name) static_assert(offsetof(official::OrtCustomOp, name) == offsetof(OrtCustomOp, name), #name);
FIELD(version) FIELD(CreateKernel) FIELD(GetName) FIELD(GetExecutionProviderType) FIELD(GetInputType)
FIELD(GetInputTypeCount) FIELD(GetOutputType) FIELD(GetOutputTypeCount) FIELD(KernelCompute) FIELD(KernelDestroy)
FIELD(GetInputCharacteristic) FIELD(GetOutputCharacteristic) FIELD(GetInputMemoryType) FIELD(GetVariadicInputMinArity)
FIELD(GetVariadicInputHomogeneity) FIELD(GetVariadicOutputMinArity) FIELD(GetVariadicOutputHomogeneity)
FIELD(CreateKernelV2) FIELD(KernelComputeV2)
static_assert(sizeof(OrtCustomOp) >= sizeof(official::OrtCustomOp), "an onnxruntime may read beyond our struct");
using namespace sparsify::ort;
static_assert(kFloat == official::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
static_assert(kUint8 == official::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
static_assert(kInt8 == official::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8);
static_assert(kUint16 == official::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16);
static_assert(kInt32 == official::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32);
static_assert(kInt64 == official::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64);
static_assert(kFail == official::ORT_FAIL && kInvalidArgument == official::ORT_INVALID_ARGUMENT);
static_assert(official::INPUT_OUTPUT_REQUIRED == 0 && official::OrtMemTypeDefault == 0);
int main() {}
"""


def test_our_declaration_has_the_official_layout(tmp_path: Path) -> None:
    source = tmp_path / "layout.cc"
    source.write_text(PROGRAM)
    ours = next(iter(kernels.__path__))
    command = [str(COMPILER), "-std=c++17", "-fsyntax-only", "-I", HEADERS, "-I", ours, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
