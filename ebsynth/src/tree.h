// Source patches like a target patch, found in a tree over what the guides show.
//
// A patch is described by the sum and both slopes of every guide channel. The tree halves the
// source's patches, again and again, at the median of the number that adds most to distances. A patch of the target walks down to a leaf,
// which holds a few source patches much like it.
#pragma once

#include <cstdint>
#include <vector>

#include "field.h"
#include "image.h"
#include "threads.h"

namespace ebsynth {

class PatchTree {
 public:
    PatchTree(const Packed& source, const Layout& layout, int patch, Threads& threads);

    // The leaf of every pixel of a target, row by row.
    std::vector<std::int32_t> leavesOf(const Packed& target, Threads& threads) const;

    // The patches of leaf i are places()[begins()[i]] .. places()[begins()[i + 1] - 1].
    const std::vector<std::int32_t>& begins() const { return begins_; }
    const std::vector<Match>& places() const { return places_; }

    // The mean of every byte over those patches, as much as a pixel for each; 0 for the style.
    const std::vector<std::uint8_t>& means() const { return means_; }

 private:
    struct Node {
        std::int16_t number;  // of the description
        std::int16_t border;  // from it on to the second half
    };
    struct Patch {
        Match place;
        std::int32_t row;  // of its description
    };
    struct Row {
        std::vector<std::int16_t> sums, slopes;  // of columns
        std::vector<std::int16_t> numbers;       // the descriptions, pixel by pixel
    };
    struct Part {
        int first, end, node;
    };

    void describeRow(const Packed& image, int y, Row& row) const;
    void split(const std::vector<std::int16_t>& numbers, const std::vector<double>& shares,
               std::vector<Patch>& patches, Part part);

    const int patch_, channels_;  // of the guides
    int shift_ = 0;               // numbers are divided by two so often, to fit 16 bits
    std::vector<Node> nodes_;  // children of i: 2 i and 2 i + 1; the root is 1
    std::vector<std::int32_t> begins_;
    std::vector<Match> places_;
    std::vector<std::uint8_t> means_;
    int depth_ = 0;
};

}  // namespace ebsynth
