// Voting: every pixel becomes the mean of what the patches that cover it say.
#pragma once

#include <cstdint>
#include <vector>

#include "field.h"
#include "image.h"
#include "threads.h"

namespace ebsynth {

using Mask = std::vector<std::uint8_t>;  // one byte a pixel, row by row

// Rewrites the style bytes of the target's pixels that are `wanted` from the source's, rounded, and
// repeats the edges. `change` takes the largest change of a channel for each of them, 0 elsewhere.
void vote(Packed& target, const Packed& source, const Field& field, int patch, const Mask& wanted,
          Mask& change, Threads& threads);

// Pixels within `reach` (by rows and columns) of a pixel of `mask` that is `least` or more: 1.
void dilate(const Mask& mask, int width, int reach, std::uint8_t least, Mask& result);

}  // namespace ebsynth
