// Source patches like a target patch, found in a tree over what the guides show.
//
// A patch is described by the sum and both slopes of every byte. The tree halves the source's patches,
// again and again, at the median of the guides' number that adds most to distances. A patch of the
// target walks down to a leaf, which holds a few source patches much like it.
#pragma once

#include <cstdint>
#include <vector>

#include "describe.h"
#include "field.h"
#include "image.h"
#include "kernels.h"
#include "threads.h"

namespace ebsynth {

class PatchTree {
 public:
    PatchTree(const Packed& source, const Layout& layout, int patch, const Kernels& kernels,
              Threads& threads);

    // Valid as long as the tree.
    Leaves leaves() const {
        return {nodes_.data(), depth_, begins_.data(), places_.data(), sketches_.data()};
    }

 private:
    struct Part {
        std::size_t first, end, node;
    };

    // Orders `patches`, the rows of numbers, by leaf; within a part they rise.
    void split(const std::vector<std::int16_t>& numbers, const std::vector<double>& shares,
               std::vector<std::uint32_t>& patches, Part part);

    std::vector<Node> nodes_;
    std::vector<std::int32_t> begins_;
    std::vector<Match> places_;
    std::vector<std::uint8_t> sketches_;
    int depth_ = 0;
};

}  // namespace ebsynth
