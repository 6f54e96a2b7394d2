#!/bin/sh
# Builds the driver with AddressSanitizer and UndefinedBehaviorSanitizer and runs it here.
# Usage: run_sanitized.sh BUILD_FOLDER
#
# The kernel for AVX-VNNI is compiled to the same instruction of AVX-512, so that it runs where only that one is.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$1

cmake -S "$here/driver" -B "$build" -DSPARSIFY_SANITIZE=ON -DSPARSIFY_AVX_VNNI_AS_AVX512=ON >/dev/null
cmake --build "$build" --target driver -j 2 >/dev/null
ASAN_OPTIONS=detect_leaks=1 "$build/driver"
