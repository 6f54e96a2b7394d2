#!/bin/sh
# Builds the driver with AddressSanitizer and UndefinedBehaviorSanitizer and runs it here; then the operators on the
# corpus of the fuzzer and 5,000 changes of it, a few seconds' worth of `make fuzz-native` without clang.
# Usage: run_sanitized.sh BUILD_FOLDER LAYERS [emulated]
#
# emulated: AVX-512 sources made of plain C++ (driver/emulated_avx512.h), so that they are checked on any CPU with AVX2.
# The kernel for AVX-VNNI is compiled to the same instruction of AVX-512, so that it runs where only that one is.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$1
layers=$2

fastest=
if [ "${3:-}" = emulated ]; then fastest=avx512_bf16; fi
cmake -S "$here/driver" -B "$build" -DSPARSIFY_SANITIZE=ON -DSPARSIFY_AVX_VNNI_AS_AVX512=ON \
  ${fastest:+"-DSPARSIFY_EMULATE_AVX512=$here/driver/emulated_avx512.h"} >/dev/null
cmake --build "$build" --target driver replay -j 2 >/dev/null
ASAN_OPTIONS=detect_leaks=1 "$build/driver" "$fastest" "$layers"
ASAN_OPTIONS=detect_leaks=1 "$build/replay" 5000 "$here/fuzz/corpus"
