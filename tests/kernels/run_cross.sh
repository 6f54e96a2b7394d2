#!/bin/sh
# Builds the driver for another CPU and runs it under an emulator. Usage: run_cross.sh aarch64|x86_64 BUILD_FOLDER
#
# aarch64 checks the NEON kernels, on a CPU with SDOT and on one without. x86_64 checks that CPUs with AVX2 only, and
# with SSE only, run nothing that they do not have (QEMU raises SIGILL for AVX-512, and for AVX where -cpu lacks it).
# Debian: apt-get install g++-aarch64-linux-gnu qemu-user
set -eu
here=$(cd "$(dirname "$0")" && pwd)
architecture=$1
build=$2

case $architecture in
  aarch64)
    set -- -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
      -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
    ;;
  x86_64) set -- ;;
  *) echo "usage: $0 aarch64|x86_64 BUILD_FOLDER" >&2; exit 2 ;;
esac
cmake -S "$here/driver" -B "$build" "$@" >/dev/null
cmake --build "$build" --target driver -j 2 >/dev/null

emulated() { echo "== qemu-$architecture -cpu $1"; "qemu-$architecture" -cpu "$1" "$build/driver" "$2" 40; }
case $architecture in
  aarch64) emulated max neon_dotprod; emulated cortex-a53 neon ;;
  x86_64) emulated Haswell avx2; emulated Nehalem scalar ;;
esac
