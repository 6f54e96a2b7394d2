// How products that prepare their rows first, to quantise or to round them, are dealt out to the threads of a pool.
#pragma once

#include <algorithm>
#include <cstdint>

#include "contract.h"

namespace sparsify {

// Of weights of `bytes` in `pieces` pieces that are much alike, the pieces of a task of so many rows. A task's weights
// stay in L2 while its rows go over them: at most 128 KB, with rows and outputs half an L2 of 512 KB. There are enough
// tasks for threads to share evenly, of 2 us and more (768x3072 and 4096x4096, Zen 3).
int64_t pieces_of_task(int64_t bytes, int64_t pieces, int64_t rows);

// Rows of a task that prepares rows of K inputs: 32 K inputs, 1 to 2 us; a multiple of the 4 that AVX-512 takes at once.
int64_t rows_of_task(int64_t k);

// multiply(first, last, piece, end) for the rows [first, last) and the pieces [piece, end) of weights, until all rows have
// met all pieces; before that prepare(first, last) for those rows, where they are not `prepared`.
//
// Where there are rows enough for all cores, a task prepares rows of its own and multiplies them by all weights: no core
// reads what another wrote, and nobody waits. Two threads then lose 2 us and not 4 to 7, as much as products of
// onnxruntime's own; where 400 ns pass between one core's writing and the other's answer, in place of 80, 5 and not 20 to
// 70. One thread is up to 1.05 times as fast, its rows being in L1 (768x3072 at 4:64, 128 rows: 80 us in place of 84).
// The fewer the rows of a task, the more often weights are read: 16 rows where these stay in L2, 32 where in L3, which costs
// one thread alone 2 %. Else all threads prepare rows, and a task is a block of rows and a chunk of weights. (All on Zen 5.)
template <class F, class G>
void in_tasks(int64_t rows, int64_t k, bool prepared, int64_t bytes, int64_t pieces, const Pool& pool, F&& prepare,
              G&& multiply) {
  constexpr int64_t kMost = 128;                       // rows
  constexpr int64_t kInL2 = 512 << 10, kInL3 = 2 << 20;  // bytes, beside rows and outputs
  const int64_t tasks = (bytes <= kInL2 ? 4 : 2) * cores(), least = bytes <= kInL2 ? 16 : bytes <= kInL3 ? 32 : kMost;
  const int64_t own = std::clamp(rows / tasks / 8 * 8, least, kMost);
  if (rows >= tasks * own && (bytes <= kInL2 || !pool.alone())) {
    const int64_t chunk = pieces_of_task(bytes, pieces, own), chunks = (pieces + chunk - 1) / chunk;
    return pool.each((rows + own - 1) / own, [&](int64_t task) {
      const int64_t first = task * own, last = std::min(first + own, rows);
      if (!prepared) prepare(first, last);
      for (int64_t i = 0; i < chunks; ++i) {
        const int64_t piece = (task % 2 == 0 ? i : chunks - 1 - i) * chunk;  // there and back: the last are in L2 still
        multiply(first, last, piece, std::min(piece + chunk, pieces));
      }
    });
  }
  const int64_t blocks = (rows + kMost - 1) / kMost, chunk = pieces_of_task(bytes, pieces, std::min(rows, kMost));
  const int64_t chunks = (pieces + chunk - 1) / chunk;
  const auto multiply_block = [&](int64_t task) {
    const int64_t first = task / chunks * kMost, piece = task % chunks * chunk;
    multiply(first, std::min(first + kMost, rows), piece, std::min(piece + chunk, pieces));
  };
  const int64_t some = rows_of_task(k), preparing = prepared ? 0 : (rows + some - 1) / some;
  if (preparing <= 1) {
    if (preparing == 1) prepare(0, rows);
    return pool.each(blocks * chunks, multiply_block);
  }
  pool.each_then_each(
      preparing, [&](int64_t task) { prepare(task * some, std::min((task + 1) * some, rows)); }, blocks * chunks,
      multiply_block);
}

}  // namespace sparsify
