// The vote: a target pixel becomes the mean of what the patches that cover it say.
#pragma once

#include <cstdint>
#include <vector>

#include "field.h"
#include "image.h"
#include "threads.h"

namespace ebsynth {

using Mask = std::vector<std::uint8_t>;  // one byte a pixel, row by row

// The sums of all votes of a field, kept up to date: a patch that moves changes the sums of the
// pixels it covers and no others.
class Votes {
 public:
    Votes(const Packed& source, const Packed& target, int patch);

    // Counts a field anew.
    void count(const Field& field, Threads& threads);

    // Follows the patches of pixels with `moved` set, which had these matches before.
    void follow(const Field& field, const std::vector<Match>& before, const Mask& moved,
                Threads& threads);

    // Rows first .. end - 1 of the target: pixels with `wanted` set become the mean of their votes.
    // `change` takes the largest change of a channel of each, 0 for pixels that are not wanted.
    void settle(Packed& target, const Field& field, const Mask& wanted, Mask& change, int first,
                int end);

    // The style alone, kStyleBytes a pixel; the target's as settled, its border as `finish` left it.
    const Packed& sourceStyle() const { return sourceStyle_; }
    const Packed& targetStyle() const { return targetStyle_; }

    // After all rows are settled: edges are repeated.
    void finish(Packed& target);

 private:
    template <bool Replaces>
    void add(Match match, Match gone, int x, int y, int first, int end);
    int sumAnywhere(const Field& field, int x, int y, std::uint32_t sums[kStyleBytes]) const;

    const Packed& source_;
    const int patch_, width_, height_;
    const bool kept_;                  // whether sums are: of small patches inside the source
    Packed sourceStyle_, targetStyle_;
    std::vector<std::uint16_t> sums_;  // of the target, kStyleBytes a pixel
};

// Pixels of rows first .. end - 1 within `reach` (by rows and columns) of a pixel of `mask` that is
// `least` or more: 1, others 0.
void dilateRows(const Mask& mask, int width, int reach, std::uint8_t least, Mask& result, int first,
                int end);

}  // namespace ebsynth
