// Plain steps straight from a bitmask that lacks few weights, for dense layers of int8 and bfloat16.
//
// Packing from columns decides block by block and group by group (int8_stream.h, bf16_stream.h). What is dense enough is
// plain steps throughout; then nothing but the order of the weights has to change, a block of inputs at a time.
#pragma once

#include <cstdint>

#include "scratch.h"
#include "weights.h"

namespace sparsify {

struct PlainLayout {
  int64_t columns;     // of a group
  int64_t block;       // inputs, at most 64
  int64_t block_cost;  // of the plain steps of a block, in the unit of the layout, as the others
  int64_t step_cost;   // of a permute step of a block
  int64_t slide_cost;  // of the cheapest step that slides
};

// T: the bits of a weight. Fills data [groups, blocks, block / S, columns, S], S = 4 weights of int8 or 2 of bfloat16, with
// zeros behind the last input and column; and with uint8_t, which is int8, `sums` [groups * columns] of the columns.
// False, with neither to be used, where packing from columns would choose another step anywhere.
//
// Requires: Weights::nearly_dense gave `in`, so that bits and values match and K is at most kMostInColumn; block <= 64,
// so that uint8_t counts and int16_t sums of a block's weights (within 64 * 128) suffice.
template <class T>
bool pack_plain(const Encoded& in, const PlainLayout& layout, Numbers<T>* data, int32_t* sums);

}  // namespace sparsify
