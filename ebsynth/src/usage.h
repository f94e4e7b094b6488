// How evenly the source is used: usage sums for every place a patch may be taken from.
#pragma once

#include <cstdint>
#include <vector>

#include "field.h"
#include "kernels.h"
#include "threads.h"

namespace ebsynth {

class UsageMap {
 public:
    UsageMap(int width, int height, int patch, int threads);

    // Counts a field anew.
    void count(const std::vector<Match>& matches, Threads& threads);

    // Takes note of matches that moved; `matches` are all as they are now. A few moves are kept for
    // later, since every copy can make them for itself.
    void follow(const std::vector<std::vector<Move>>& moves, const std::vector<Match>& matches,
                Threads& threads);

    // The counts themselves, for a single band that may change them.
    Usage shared();

    // A copy of the counts that a thread may change; given back, with what it changed there.
    Usage copyFor(int thread);
    void giveBack(int thread, const std::vector<Move>& moves);

 private:
    struct Copy {
        std::vector<std::int32_t> sums;
        unsigned version = 0;      // of the counts it was made of; 0: of none
        std::size_t followed = 0;  // of the moves since
    };

    Usage of(std::vector<std::int32_t>& sums) const { return {stride_, pad_, sums.data()}; }
    void followRows(int first, int end);
    void settled();
    void sumRow(std::int32_t* row) const;
    void sumColumns(int first, int end);

    int height_, patch_, pad_, stride_;
    std::vector<std::int32_t> sums_;
    std::vector<Move> recent_;  // that the counts lack
    std::vector<Copy> copies_;
    unsigned version_ = 1;
};

}  // namespace ebsynth
