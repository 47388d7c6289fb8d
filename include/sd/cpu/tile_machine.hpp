// Products of pairs of bfloat16: the tile that they are made of, and the instructions of a processor that compute it.
//
//     sums[m][n] += rows[m][k] columns[k][n]       m, n < 32; k runs in steps of 32, in pairs (k = 2 pair + part)
//
//     rows      row m of a step is a line of 32 values, 64 bytes; rows lie equally far apart
//     columns   (half of the columns, pair, column of the half, part): two pieces of 1 KiB a step
//
// Forward and by input a row is a pixel and its line 32 channels; by weight a row is a channel and its line 32 pixels.
#pragma once

#include "sd/core/bfloat16.hpp"
#include "sd/core/shape.hpp"

SD_NAMESPACE_BEGIN

namespace cpu {

/// Rows and columns of a tile, and the depth of a step.
inline constexpr Index pair_lanes = 32;
/// Elements that the columns of a tile have a step.
inline constexpr Index pair_step = pair_lanes * pair_lanes;

/// One operand of a tile: the part of step (block, i) begins at data + block plane + offsets[i].
struct PairOperand {
    const bfloat16* data;
    Index plane;
    const Index* offsets;
    Index stride;  ///< elements between rows, or between the halves of columns
};

/// What one tile reads, and its depth: blocks x offset_count steps.
struct PairOperands {
    PairOperand rows, columns;
    Index blocks, offset_count;
};

/// Instructions that multiply pairs. Products are exact, sums are float; denormal numbers may count as zero.
struct TileMachine {
    const char* name;
    Index cache_bytes;    ///< of the second-level cache of a core
    bool beats_winograd;  ///< for 3x3 kernels, which Winograd's tiles in float compute with less than half the products
    void (*begin)();      ///< to be called by a thread before it multiplies
    void (*end)();        ///< and afterwards
    /// sums (32, 32) = [accumulate ? sums : 0] + rows x columns, over all steps.
    void (*multiply)(const PairOperands& operands, float* sums, bool accumulate);
};

}  // namespace cpu

SD_NAMESPACE_END
