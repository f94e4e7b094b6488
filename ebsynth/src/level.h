// One resolution of a frame at work: rounds of search and vote.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "field.h"
#include "image.h"
#include "kernels.h"
#include "threads.h"
#include "tree.h"
#include "usage.h"
#include "vote.h"

namespace ebsynth {

// How much is searched.
struct Effort {
    int sweeps;            // of search in the first round
    int lateSweeps;        // and in the others
    int randomSweeps;      // the first ones of a round try random matches too
    double randomShare;    // in the first round: where the objective is this share of the mean or more
    int radius;            // of the random search, at most
    double farShare;       // from this share of the mean on
    int farRadius;         // this is the radius instead
    double leafShare;      // from this share of the mean on patches try their leaf of the tree, in
                           // the first round; in others from the mean on
    int leafTries;         // of a leaf, the most promising ones
    std::uint8_t visible;  // patches are searched again in which a channel changed by this
    std::uint8_t lateVisible;  // from the third round on by this
    int conspicuous;       // and those whose distance is this many times the mean: lucky finds that
                           // lower the objective are nearly all among them
    double enough;         // the search ends after a round that lowers the objective by less
    bool dwells;           // goes on for up to as many rounds again while few patches are searched
};

class Level {
 public:
    // Everything given by reference must live as long as the level.
    Level(const Layout& layout, const Kernels& kernels, Threads& threads, const Packed& source,
          Packed target, Field field, int patch, std::uint64_t seed);

    // Matches to try besides: those of a second field (empty: none), which every pixel begins with
    // where its guides fit better, and those of a tree over the source (null: none).
    void propose(Field other, const PatchTree* tree);

    // Rounds of search and vote; `begun` hears of each round. `uniformity` is the weight of even
    // use of the source, in distances.
    void refine(int rounds, const Effort& effort, double uniformity,
                const std::function<void(int)>& begun);

    // The target's style is what the last vote made of it, the distances are those of the field.
    const Packed& target() const { return target_; }
    const std::vector<std::uint32_t>& distances() const { return distances_; }

    // Each empties the level of what it gives.
    Field takeField() { return std::move(field_); }
    Packed takeTarget() { return std::move(target_); }

 private:
    void beginWithBetter();
    void setPenalty(double uniformity);
    Sweep sweepOf(int firstRow, int endRow);
    void begin();
    Sweep guidesOf(int firstRow, int endRow);
    void search(int round, int number, const Effort& effort);
    int drawSteps(int largest);
    void revote(const std::vector<Match>& before);
    void choose(std::uint8_t visible, int conspicuous);
    double objective() const;

    const Layout& layout_;
    const Kernels& kernels_;
    Threads& threads_;
    const Packed& source_;
    const int patch_;
    std::uint64_t seed_;
    Packed target_;
    Field field_;
    std::vector<std::int16_t> guideWeights_;
    Votes votes_;
    std::vector<std::uint32_t> distances_, guides_;  // the latter: the guides' part
    bool guidesKnown_ = false;                       // of all matches
    Mask active_, moved_, change_, wanted_, tried_;
    std::vector<std::ptrdiff_t> works_;  // patches to search in every row
    std::ptrdiff_t allWork_ = 0;
    std::int64_t distanceSum_ = 0;
    Field other_;
    Leaves leaves_{};
    std::vector<Step> steps_;
    std::vector<Move> moves_[UsageMap::kLanes];
    UsageMap usage_;
    std::int64_t penalty_ = 0;
};

}  // namespace ebsynth
