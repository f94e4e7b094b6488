// Voting: every pixel becomes the mean of what the patches that cover it say.
#pragma once

#include <cstdint>
#include <vector>

#include "field.h"
#include "image.h"

namespace ebsynth {

using Mask = std::vector<std::uint8_t>;  // one byte a pixel, row by row

// Rewrites the style bytes of the target's pixels that are `wanted`, in rows first .. end - 1, from
// the source's, rounded; not the border. `change` takes the largest change of a channel for each of
// them, 0 elsewhere.
void voteRows(Packed& target, const Packed& source, const Field& field, int patch,
              const Mask& wanted, Mask& change, int first, int end);

// Pixels of rows first .. end - 1 within `reach` (by rows and columns) of a pixel of `mask` that is
// `least` or more: 1, others 0.
void dilateRows(const Mask& mask, int width, int reach, std::uint8_t least, Mask& result, int first,
                int end);

}  // namespace ebsynth
