#!/bin/sh
# Builds the libFuzzer target of the operators and runs it, starting from the corpus beside it.
# Usage: run_fuzz.sh BUILD_FOLDER EXECUTIONS
#
# What it learns stays in BUILD_FOLDER/corpus; an input that crashes is written to BUILD_FOLDER. Needs clang with its
# runtime libraries: Debian's clang-19 and libclang-rt-19-dev, or CXX=...
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$1
executions=$2

if [ -z "${CXX:-}" ]; then
  for CXX in clang++ clang++-19 clang++-18 clang++-16 clang++-14; do
    command -v "$CXX" >/dev/null && break
  done
fi
cmake -S "$here/fuzz" -B "$build" -DCMAKE_CXX_COMPILER="$CXX" >/dev/null
cmake --build "$build" --target packed -j 2 >/dev/null 2>&1
mkdir -p "$build/corpus"
# The status is the fuzzer's, not that of a filter behind it.
"$build/packed" -verbosity=0 -runs="$executions" -max_len=8192 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
  -artifact_prefix="$build/" "$build/corpus" "$here/fuzz/corpus"
