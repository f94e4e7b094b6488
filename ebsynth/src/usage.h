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

    // Brings the counts up to date after matches moved; `matches` are all as they are now.
    void follow(const std::vector<std::vector<Move>>& moves, const std::vector<Match>& matches,
                Threads& threads);

    // The counts themselves, for a single band; `changed` tells that it changed them.
    Usage shared();
    void changed() { ++version_; }

    // A copy of the counts that a thread may change; given back, with what it changed there.
    Usage copyFor(int thread);
    void giveBack(int thread, const std::vector<Move>& moves);

 private:
    struct Copy {
        std::vector<std::int32_t> sums;
        unsigned version = 0;  // of the counts it equals; 0: of none
    };

    Usage of(std::vector<std::int32_t>& sums) const { return {stride_, pad_, sums.data()}; }
    void followRows(const std::vector<std::vector<Move>>& moves, int first, int end);
    void sumRow(std::int32_t* row) const;
    void sumColumns(int first, int end);

    int height_, patch_, pad_, stride_;
    std::vector<std::int32_t> sums_;
    std::vector<Copy> copies_;
    unsigned version_ = 1;
};

}  // namespace ebsynth
