// The search, over a `Lane` that knows the instruction set. Included by every kernels_*.cpp.
//
// A Lane holds the target's patch in the form its arithmetic wants and adds up rows of distance:
//   Lane(const std::int16_t* weights, int blocks, int patch)
//   void take(const std::uint8_t* corner, std::ptrdiff_t rowBytes)   the target's patch
//   std::uint32_t distance(const std::uint8_t* corner, std::ptrdiff_t rowBytes, std::int64_t bound)
//   const std::int16_t* describe()                     of the patch taken
//   std::uint32_t least(const std::uint8_t* sketch)    no patch with this sketch is nearer to it
// `distance` may stop early and then returns anything above `bound`. Most are a `RowLane`.

#include <algorithm>

#include "kernels.h"
#include "mask.h"
#include "random.h"

namespace ebsynth {
namespace {

inline void prefetch(const void* address) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(address);
#else
    (void)address;
#endif
}

// Patches of any size, or of one known at compile time, in memory as they are. A Block knows a block
// of bytes:
//   Sum                                         partial sums of distance, as the processor likes them
//   static Sum plus(Sum, const std::uint8_t* target, const std::uint8_t* source,
//                   const std::int16_t* weights)
//   static std::uint32_t total(Sum)
template <class Block, int Patch, int Blocks>
class RowLane {
 public:
    RowLane(const std::int16_t* weights, int blocks, int patch)
        : weights_(weights), blocks_(blocks), patch_(patch), scales_(patch),
          totals_(std::size_t(kNumbers * blocks * kPixelBlock)), numbers_(totals_.size()),
          sketch_(totals_.size()) {}

    void take(const std::uint8_t* corner, std::ptrdiff_t rowBytes) {
        target_ = corner;
        targetRow_ = rowBytes;
    }

    std::uint32_t distance(const std::uint8_t* corner, std::ptrdiff_t rowBytes,
                           std::int64_t bound) const {
        typename Block::Sum lanes{};
        std::uint32_t sum = 0;
        const int patch = Patch ? Patch : patch_, blocks = Blocks ? Blocks : blocks_;
        for (int y = 0; y < patch; ++y) {
            const std::uint8_t* a = target_ + y * targetRow_;
            const std::uint8_t* b = corner + y * rowBytes;
            for (int x = 0; x < patch; ++x) {
                for (int i = 0; i < blocks; ++i, a += kPixelBlock, b += kPixelBlock) {
                    lanes = Block::plus(lanes, a, b, weights_ + i * kPixelBlock);
                }
            }
            sum = Block::total(lanes);
            if (sum >= bound) break;
        }
        return sum;
    }

    const std::int16_t* describe() {
        const std::size_t bytes = bytesOfPixel();
        ebsynth::describe(target_, targetRow_, patch_, int(bytes), totals_.data());
        for (std::size_t i = 0; i < totals_.size(); ++i) {
            numbers_[i] = scales_.number(totals_[i]);
            sketch_[i] = i < bytes ? scales_.mean(totals_[i]) : scales_.slope(totals_[i]);
        }
        return numbers_.data();
    }

    std::uint32_t least(const std::uint8_t* sketch) const {
        const std::size_t bytes = bytesOfPixel();
        std::uint32_t parts[kNumbers] = {};
        const std::uint8_t* mine = sketch_.data();
        for (std::uint32_t& part : parts) {
            for (std::size_t i = 0; i < bytes; ++i) {
                // Both are rounded down, so that they differ by less than one more than the true.
                const int d = std::max(0, std::abs(int(mine[i]) - int(sketch[i])) - 1);
                part += static_cast<std::uint32_t>(d * d * weights_[i]);
            }
            mine += bytes;
            sketch += bytes;
        }
        return std::uint32_t(scales_.area) * parts[0] + scales_.slopeShare * (parts[1] + parts[2]);
    }

 private:
    std::size_t bytesOfPixel() const { return std::size_t((Blocks ? Blocks : blocks_) * kPixelBlock); }

    const std::int16_t* weights_;
    const int blocks_, patch_;
    const Scales scales_;
    std::vector<std::int32_t> totals_;
    std::vector<std::int16_t> numbers_;
    std::vector<std::uint8_t> sketch_;
    const std::uint8_t* target_ = nullptr;
    std::ptrdiff_t targetRow_ = 0;
};

// Patch, Blocks: known at compile time, or 0.
template <class Lane, int Patch, int Blocks>
class Searcher {
 public:
    explicit Searcher(const Sweep& sweep)
        : s_(sweep), lane_(sweep.weights, sweep.source->pixelBytes / kPixelBlock, sweep.patch),
          patch_(Patch ? Patch : sweep.patch),
          pixelBytes_(Blocks ? Blocks * kPixelBlock : sweep.source->pixelBytes),
          targetRow_(sweep.target->stride * pixelBytes_),
          sourceRow_(sweep.source->stride * pixelBytes_),
          targetCorner_(sweep.target->at(-(sweep.patch / 2), -(sweep.patch / 2))),
          sourceCorner_(sweep.source->at(-(sweep.patch / 2), -(sweep.patch / 2))) {}

    // Returns by how much the sum of squares of the use changed.
    std::int64_t sweep() {
        const int width = s_.target->width, step = s_.forward ? 1 : -1;
        int y = s_.forward ? s_.firstRow : s_.endRow - 1;
        for (int rows = s_.endRow - s_.firstRow; rows > 0; --rows, y += step) {
            const std::uint8_t* active = s_.active + std::ptrdiff_t(y) * width;
            if (s_.forward) {
                for (int x = nextSet(active, 0, width); x < width; x = nextSet(active, x + 1, width)) {
                    searchPixel(x, y);
                }
            } else {
                for (int x = lastSet(active, width); x >= 0; x = lastSet(active, x)) {
                    searchPixel(x, y);
                }
            }
        }
        return useChange_;
    }

    void measure(const std::uint8_t* wanted) {
        const int width = s_.target->width;
        for (int y = s_.firstRow; y < s_.endRow; ++y) {
            const std::ptrdiff_t row = std::ptrdiff_t(y) * width;
            for (int x = nextSet(wanted + row, 0, width); x < width;
                 x = nextSet(wanted + row, x + 1, width)) {
                const Match match = s_.matches[row + x];
                lane_.take(targetCorner(x, y), targetRow_);
                std::uint32_t& distance = s_.distances[row + x];
                distance = lane_.distance(corner(match), sourceRow_,
                                          s_.bounded ? std::int64_t(distance) : kNoBound);
            }
        }
    }

 private:
    static constexpr std::int64_t kNoBound = std::int64_t(1) << 62;

    const std::uint8_t* corner(Match match) const {
        return sourceCorner_ + match.y * sourceRow_ + match.x * pixelBytes_;
    }
    const std::uint8_t* targetCorner(int x, int y) const {
        return targetCorner_ + y * targetRow_ + x * pixelBytes_;
    }
    // Of a match at a place, beside the others' matches.
    std::int64_t penalty(Match place) const {
        const std::int32_t use = *s_.usage.at(place.x, place.y) - overlap(place, before_, patch_);
        return (std::int64_t(use) * s_.penalty) >> 16;
    }

    void searchPixel(int x, int y) {
        const int width = s_.target->width, step = s_.forward ? 1 : -1;
        const std::ptrdiff_t at = std::ptrdiff_t(y) * width + x;
        const int px = x - step, py = y - step;
        const Match mine = s_.matches[at];
        Match beside = mine, above = mine;
        if (px >= 0 && px < width && s_.moved[at - step] >= s_.retry) {
            beside = moved(s_.matches[at - step], step, 0, mine);
        }
        if (py >= s_.firstRow && py < s_.endRow && s_.moved[at - step * width] >= s_.retry) {
            above = moved(s_.matches[at - step * width], 0, step, mine);
        }
        const bool tries = s_.leaves && !s_.tried[at];
        if (!s_.farRadii && !s_.proposed && !tries && beside == mine && above == mine) return;
        match_ = before_ = mine;
        distance_ = s_.distances[at];
        total_ = distance_ + penalty(match_);
        lane_.take(targetCorner(x, y), targetRow_);
        if (s_.proposed && s_.proposed[at] != mine) attempt(s_.proposed[at]);
        if (beside != mine) attempt(beside);
        if (above != mine && above != beside) attempt(above);
        if (tries && total_ >= s_.leafFrom) tryLeaf(at);
        if (s_.farRadii && total_ >= s_.randomFrom) tryAround(at);
        if (match_ != before_) {
            s_.matches[at] = match_;
            s_.distances[at] = distance_;
            s_.moved[at] = s_.stamp;
            const std::int64_t sums = std::int64_t(*s_.usage.at(match_.x, match_.y)) -
                                      *s_.usage.at(before_.x, before_.y);
            useChange_ += 2 * (sums + patch_ * patch_ - overlap(match_, before_, patch_));
            addUse(before_, -1);
            addUse(match_, 1);
            s_.moves->push_back({before_, match_});
        }
    }

    // A neighbour's match moved on; `otherwise` where no patch may be.
    Match moved(Match near, int dx, int dy, Match otherwise) const {
        const int x = near.x + dx, y = near.y + dy;
        if (!s_.bounds.holds(x, y)) return otherwise;
        return {static_cast<std::uint16_t>(x), static_cast<std::uint16_t>(y)};
    }

    void addUse(Match place, int sign) const {
        if (Patch == 5) return s_.usage.addFive(place, sign);
        s_.usage.add(place, patch_, sign);
    }

    // The matches of a pixel's leaf, the most promising first, but for those that cannot be better.
    void tryLeaf(std::ptrdiff_t at) {
        struct Candidate {
            std::int64_t least;
            Match place;
        };
        const Leaves& leaves = *s_.leaves;
        s_.tried[at] = 1;
        const std::int16_t* numbers = lane_.describe();
        std::int32_t node = 1;
        for (int i = 0; i < leaves.depth; ++i) {
            const Node& one = leaves.nodes[node];
            node = 2 * node + (numbers[one.number] >= one.border);
        }
        const std::int32_t leaf = node - (1 << leaves.depth);
        const std::int32_t first = leaves.begins[leaf], end = leaves.begins[leaf + 1];
        const std::uint8_t* sketch = leaves.sketches + first * kNumbers * pixelBytes_;
        Candidate near[kMostOfLeaf];
        int count = 0;
        for (std::int32_t i = first; i < end; ++i, sketch += kNumbers * pixelBytes_) {
            const Match place = leaves.places[i];
            std::int64_t least = lane_.least(sketch);
            if (least >= total_ || place == match_) continue;
            least += penalty(place);
            if (least >= total_) continue;
            prefetch(corner(place));
            prefetch(corner(place) + sourceRow_);
            int to = count++;
            for (; to > 0 && near[to - 1].least > least; --to) near[to] = near[to - 1];
            near[to] = {least, place};
        }
        for (int i = 0; i < count && near[i].least < total_; ++i) attempt(near[i].place);
    }

    // Random search in windows around the match: all steps are drawn first, so that memory answers
    // for the later ones while the first are looked at.
    void tryAround(std::ptrdiff_t at) {
        Match drawn[kMostRadii];
        int count = 0;
        std::uint64_t state = 0;
        const Step* steps = s_.steps;
        const int radii = total_ >= s_.farFrom ? s_.farRadii : s_.radii;
        for (int i = 0; i < radii; ++i, steps += kSteps, state /= kSteps) {
            if (i % kStepsInBits == 0) {
                state = mixed(s_.seed + std::uint64_t(at) * kMostRadii + std::uint64_t(i));
            }
            const Step step = steps[state % kSteps];
            const Match place = s_.bounds.reflected(match_.x + step.x, match_.y + step.y);
            prefetch(s_.usage.at(place.x, place.y));
            const std::uint8_t* first = corner(place);
            prefetch(first);
            prefetch(first + sourceRow_);
            drawn[count] = place;
            count += place != match_;
        }
        for (int i = 0; i < count; ++i) {
            if (drawn[i] != match_) attempt(drawn[i]);
        }
    }

    void attempt(Match place) {
        const std::int64_t extra = penalty(place), bound = total_ - extra;
        if (bound <= 0) return;
        const std::uint32_t found = lane_.distance(corner(place), sourceRow_, bound);
        if (found >= bound) return;
        match_ = place;
        distance_ = found;
        total_ = found + extra;
    }

    const Sweep& s_;
    Lane lane_;
    const int patch_;
    const std::ptrdiff_t pixelBytes_, targetRow_, sourceRow_;
    const std::uint8_t* const targetCorner_;
    const std::uint8_t* const sourceCorner_;
    Match match_, before_;
    std::uint32_t distance_ = 0;
    std::int64_t total_ = 0, useChange_ = 0;
};

template <template <int, int> class Lane>
void sweepWith(Sweep& sweep) {
    const int blocks = sweep.source->pixelBytes / kPixelBlock;
    if (sweep.patch == 5 && blocks == 1) {
        sweep.useChange = Searcher<Lane<5, 1>, 5, 1>(sweep).sweep();
    } else if (sweep.patch == 5 && blocks == 2) {
        sweep.useChange = Searcher<Lane<5, 2>, 5, 2>(sweep).sweep();
    } else {
        sweep.useChange = Searcher<Lane<0, 0>, 0, 0>(sweep).sweep();
    }
}

template <template <int, int> class Lane>
void measureWith(const Sweep& sweep, const std::uint8_t* wanted) {
    const int blocks = sweep.source->pixelBytes / kPixelBlock;
    if (sweep.patch == 5 && blocks == 1) return Searcher<Lane<5, 1>, 5, 1>(sweep).measure(wanted);
    if (sweep.patch == 5 && blocks == 2) return Searcher<Lane<5, 2>, 5, 2>(sweep).measure(wanted);
    return Searcher<Lane<0, 0>, 0, 0>(sweep).measure(wanted);
}

}  // namespace
}  // namespace ebsynth
