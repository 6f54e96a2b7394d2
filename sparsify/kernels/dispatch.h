// Which ISA path this process runs, and the kernel of each format on it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "contract.h"

namespace sparsify {

struct KernelInfo {
  std::string name;
  Format format;
  Isa isa;  // lowest path that can run it
  Fp32Factory make_fp32;  // kFp32
  Int8Factory make_int8;  // kInt8
  Bf16Factory make_bf16;  // kBf16
  ColumnsFactory make_columns;  // kColumns
  RowsFactory make_rows;        // kRows, kRowsBf16, kRowsInt8
  Quantize quantize;            // kQuantize
};

const char* isa_name(Isa isa);

// Paths that this CPU can run, fastest first, probed once; kScalar is always the last.
const std::vector<Isa>& isas();
bool can_run(Isa isa);

// The path in force: the fastest, or a lower one named by the environment variable SPARSIFY_ISA.
// A name that is unknown or not one of isas() is ignored here; the Python side reports it.
Isa chosen_isa();
bool isa_is_forced();

// All of kernels.inc, fastest of a format first.
const std::vector<KernelInfo>& kernels();

// First of `format` that the path in force can run; there is always the scalar one.
const KernelInfo& kernel_for(Format format);

}  // namespace sparsify
