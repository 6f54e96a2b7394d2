/* What one core does of the instructions that a kernel's step consists of, on registers only: billions of operations a
   second, a multiplication and an addition each. Compiled and called by peak.py; x86-64, GNU assembler. */
#define _GNU_SOURCE
#include <stdint.h>
#include <time.h>

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

#define CLOBBERED                                                                                                    \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", \
      "xmm14", "xmm15"

/* 8 sums (registers 0 to 7) hide the latency, 4 registers (8 to 11) hold what was picked; 12 to 15 are zeros. */
#define EIGHT(STEP) STEP(0, 8) STEP(1, 9) STEP(2, 10) STEP(3, 11) STEP(4, 8) STEP(5, 9) STEP(6, 10) STEP(7, 11)
#define PEAK(name, STEP, operations)                                                                       \
  double peak_##name(void) {                                                                               \
    const int64_t rounds = 4000000; /* of 8 steps: some 10 ms */                                           \
    double best = 0;                                                                                       \
    for (int attempt = 0; attempt < 5; ++attempt) {                                                        \
      int64_t left = rounds;                                                                               \
      const double began = seconds();                                                                      \
      __asm__ volatile("vzeroall\n1:\n" EIGHT(STEP) "dec %0\njnz 1b\nvzeroupper\n" : "+r"(left)::CLOBBERED, "cc"); \
      const double rate = 8e-9 * rounds * (operations) / (seconds() - began);                              \
      if (rate > best) best = rate;                                                                        \
    }                                                                                                      \
    return best;                                                                                           \
  }

#define R(bits, n) "%%" #bits "mm" #n
#define FMA(b, s, t) "vfmadd231ps " R(b, 12) ", " R(b, 13) ", " R(b, s) "\n"
#define DOT(b, s, t) "vpdpbusd " R(b, 14) ", " R(b, 13) ", " R(b, s) "\n"
#define PICKED_DOT(pick, b, s, t) pick " " R(b, 12) ", " R(b, 13) ", " R(b, t) "\nvpdpbusd " R(b, 14) ", " R(b, t) ", " R(b, s) "\n"
#define TAIL(b, s, t) "vpmaddwd " R(b, 15) ", " R(b, t) ", " R(b, t) "\nvpaddd " R(b, t) ", " R(b, s) ", " R(b, s) "\n"
#define MADD(b, s, t) "vpmaddubsw " R(b, 14) ", " R(b, 13) ", " R(b, t) "\n" TAIL(b, s, t)
#define PICKED_MADD(b, s, t) \
  "vpshufb " R(b, 12) ", " R(b, 13) ", " R(b, t) "\nvpmaddubsw " R(b, 14) ", " R(b, t) ", " R(b, t) "\n" TAIL(b, s, t)
#define PICKED_BF16(b, s, t) "vpermw " R(b, 12) ", " R(b, 13) ", " R(b, t) "\nvdpbf16ps " R(b, 14) ", " R(b, t) ", " R(b, s) "\n"

#define FMA_Y(s, t) FMA(y, s, t)
#define FMA_Z(s, t) FMA(z, s, t)
#define DOT_Y(s, t) "%{vex%} " DOT(y, s, t)
#define DOT_Z(s, t) DOT(z, s, t)
#define MADD_Y(s, t) MADD(y, s, t)
#define MADD_Z(s, t) MADD(z, s, t)
#define SPARSE_MADD_Y(s, t) PICKED_MADD(y, s, t)
#define SPARSE_MADD_Z(s, t) PICKED_MADD(z, s, t)
#define SPARSE_DOT_Y(s, t) "vpshufb " R(y, 12) ", " R(y, 13) ", " R(y, t) "\n%{vex%} vpdpbusd " R(y, 14) ", " R(y, t) ", " R(y, s) "\n"
#define SPARSE_DOT_Z(s, t) PICKED_DOT("vpshufb", z, s, t)
#define PERMUTED_DOT_Z(s, t) PICKED_DOT("vpermb", z, s, t)
#define BF16_Z(s, t) PICKED_BF16(z, s, t)

PEAK(avx2_fma, FMA_Y, 16)
PEAK(avx2_dense, MADD_Y, 64)
PEAK(avx2_sparse, SPARSE_MADD_Y, 64)
PEAK(avx2_vnni_dense, DOT_Y, 64)
PEAK(avx2_vnni_sparse, SPARSE_DOT_Y, 64)
PEAK(avx512_fma, FMA_Z, 32)
PEAK(avx512_dense, MADD_Z, 128)
PEAK(avx512_sparse, SPARSE_MADD_Z, 128)
PEAK(avx512_vnni_dense, DOT_Z, 128)
PEAK(avx512_vnni_sparse, SPARSE_DOT_Z, 128)
PEAK(avx512_vbmi_dense, DOT_Z, 128)
PEAK(avx512_vbmi_sparse, PERMUTED_DOT_Z, 128)
PEAK(avx512_bf16_sparse, BF16_Z, 64)
