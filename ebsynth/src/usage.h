// How evenly the source is used: usage sums for every place a patch may be taken from.
#pragma once

#include <cstdint>
#include <vector>

#include "field.h"
#include "kernels.h"
#include "threads.h"

namespace ebsynth {

// Two maps that count the same, so that two bands can search side by side, each with live use of
// its own. They are brought together after every sweep.
class UsageMap {
 public:
    static constexpr int kLanes = 2;

    UsageMap(int width, int height, int patch);

    // Counts a field anew.
    void count(const std::vector<Match>& matches, Threads& threads);

    // The map of a lane, which may change it as long as it notes its moves.
    Usage lane(int number) { return of(sums_[number]); }

    // Tells each map what the other lane moved, `changes` being what that made of the sum of
    // squares in its own. `matches` are all as they are now.
    void join(const std::vector<Move> (&moves)[kLanes], const std::int64_t (&changes)[kLanes],
              const std::vector<Match>& matches, Threads& threads);

    // The sum, over all matches, of their usage sum: the sum of squares of every pixel's use.
    std::int64_t squares() const { return squares_; }

 private:
    Usage of(std::vector<std::int32_t>& sums) const { return {stride_, pad_, sums.data()}; }
    std::int64_t follow(const Usage& usage, const std::vector<Move>& moves) const;
    void sumRow(std::int32_t* row) const;
    void sumColumns(int first, int end);

    int height_, patch_, pad_, stride_;
    std::vector<std::int32_t> sums_[kLanes];
    std::int64_t squares_ = 0;
};

}  // namespace ebsynth
