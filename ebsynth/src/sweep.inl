// The search, over a `Lane` that knows the instruction set. Included by every kernels_*.cpp.
//
// A Lane holds the target's patch in the form its arithmetic wants and adds up rows of distance:
//   Lane(const std::int16_t* weights, int blocks, int patch)
//   void take(const std::uint8_t* corner, std::ptrdiff_t rowBytes)   the target's patch
//   std::uint32_t distance(const std::uint8_t* corner, std::ptrdiff_t rowBytes, std::int64_t bound)
//   std::uint32_t strip(target, source, targetStep, sourceStep)   of a row or column of a patch; the
//                                                                 steps lead to its next pixel
//   std::uint32_t exchange(const Pair& come, const Pair& gone, targetStep, sourceStep)
//                                                                 of a strip, less that of another
//   static std::uint32_t style(target's corner, its row, source's corner, its row, patch)
//                                    sum of squares of patches of the style alone
//   const std::int16_t* describe()                     of the patch taken
//   void copySketch(std::uint8_t* to)                  of the patch described last
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

// Where a strip begins.
struct Pair {
    const std::uint8_t* target;
    const std::uint8_t* source;
};

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

    std::uint32_t strip(const std::uint8_t* target, const std::uint8_t* source,
                        std::ptrdiff_t targetStep, std::ptrdiff_t sourceStep) const {
        typename Block::Sum lanes{};
        const int patch = Patch ? Patch : patch_, bytes = int(bytesOfPixel());
        for (int i = 0; i < patch; ++i, target += targetStep, source += sourceStep) {
            for (int b = 0; b < bytes; b += kPixelBlock) {
                lanes = Block::plus(lanes, target + b, source + b, weights_ + b);
            }
        }
        return Block::total(lanes);
    }

    std::uint32_t exchange(const Pair& come, const Pair& gone, std::ptrdiff_t targetStep,
                           std::ptrdiff_t sourceStep) const {
        return strip(come.target, come.source, targetStep, sourceStep) -
               strip(gone.target, gone.source, targetStep, sourceStep);
    }

    static std::uint32_t style(const std::uint8_t* target, std::ptrdiff_t targetRow,
                               const std::uint8_t* source, std::ptrdiff_t sourceRow, int anyPatch) {
        int sum = 0;
        const int patch = Patch ? Patch : anyPatch;
        for (int y = 0; y < patch; ++y, target += targetRow, source += sourceRow) {
            for (int i = 0; i < patch * kStyleBytes; ++i) {
                const int d = target[i] - source[i];
                sum += d * d;
            }
        }
        return std::uint32_t(sum);
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

    void copySketch(std::uint8_t* to) const { std::copy(sketch_.begin(), sketch_.end(), to); }

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
          targetRow_(sweep.target->stride * pixelBytes()),
          sourceRow_(sweep.source->stride * pixelBytes()),
          targetCorner_(sweep.target->at(-(sweep.patch / 2), -(sweep.patch / 2))),
          sourceCorner_(sweep.source->at(-(sweep.patch / 2), -(sweep.patch / 2))),
          targetStyle_(sweep.targetStyle->at(-(sweep.patch / 2), -(sweep.patch / 2))),
          sourceStyle_(sweep.sourceStyle->at(-(sweep.patch / 2), -(sweep.patch / 2))),
          usage_(sweep.usage.sums ? sweep.usage.at(0, 0) : nullptr) {}

    // Returns by how much the sum of squares of the use changed.
    std::int64_t sweep() {
        const int width = s_.target->width;
        if (s_.forward) {
            for (int y = s_.firstRow; y < s_.endRow; ++y) {
                const std::uint8_t* active = s_.active + std::ptrdiff_t(y) * width;
                for (int x = nextSet(active, 0, width); x < width; x = nextSet(active, x + 1, width)) {
                    searchPixel<1>(x, y);
                }
            }
        } else {
            for (int y = s_.endRow - 1; y >= s_.firstRow; --y) {
                const std::uint8_t* active = s_.active + std::ptrdiff_t(y) * width;
                for (int x = lastSet(active, width); x >= 0; x = lastSet(active, x)) {
                    searchPixel<-1>(x, y);
                }
            }
        }
        return useChange_;
    }

    // Where matches go on from pixel to pixel, the patches share all columns but one.
    void measure(const std::uint8_t* wanted) {
        const int width = s_.target->width;
        std::vector<std::uint32_t> columns(static_cast<std::size_t>(patch()));
        for (int y = s_.firstRow; y < s_.endRow; ++y) {
            const std::ptrdiff_t row = std::ptrdiff_t(y) * width;
            Match next;  // that would go on
            int oldest = 0, before = -2;
            std::uint32_t sum = 0;
            for (int x = nextSet(wanted + row, 0, width); x < width;
                 x = nextSet(wanted + row, x + 1, width)) {
                const Match match = s_.matches[row + x];
                const std::uint8_t *target = targetCorner(x, y), *source = corner(match);
                int column = patch() - 1;
                if (x != before + 1 || match != next) {
                    column = oldest = 0;
                    sum = 0;
                    std::fill(columns.begin(), columns.end(), 0u);
                }
                for (; column < patch(); ++column) {
                    const std::uint32_t come = lane_.strip(target + column * pixelBytes(),
                                                           source + column * pixelBytes(),
                                                           targetRow_, sourceRow_);
                    sum += come - columns[std::size_t(oldest)];
                    columns[std::size_t(oldest)] = come;
                    if (++oldest == patch()) oldest = 0;
                }
                s_.distances[row + x] = sum;
                before = x;
                next = {static_cast<std::uint16_t>(match.x + 1), match.y};
            }
        }
    }

    void addStyle(const std::uint8_t* wanted) {
        const int width = s_.target->width;
        for (int y = s_.firstRow; y < s_.endRow; ++y) {
            const std::ptrdiff_t row = std::ptrdiff_t(y) * width;
            for (int x = nextSet(wanted + row, 0, width); x < width;
                 x = nextSet(wanted + row, x + 1, width)) {
                s_.distances[row + x] = s_.guides[row + x] + styleAt(x, y, s_.matches[row + x]);
            }
        }
    }

 private:
    static constexpr int kEight = 8;

    int patch() const { return Patch ? Patch : s_.patch; }
    std::ptrdiff_t pixelBytes() const { return Blocks ? Blocks * kPixelBlock : s_.source->pixelBytes; }

    const std::uint8_t* corner(Match match) const {
        return sourceCorner_ + match.y * sourceRow_ + match.x * pixelBytes();
    }
    const std::uint8_t* targetCorner(int x, int y) const {
        return targetCorner_ + y * targetRow_ + x * pixelBytes();
    }
    // The style's part of a distance.
    std::uint32_t styleAt(int x, int y, Match match) const {
        const std::ptrdiff_t targetRow = s_.targetStyle->stride * kStyleBytes;
        const std::ptrdiff_t sourceRow = s_.sourceStyle->stride * kStyleBytes;
        return std::uint32_t(s_.weights[0]) *
               Lane::style(targetStyle_ + y * targetRow + x * kStyleBytes, targetRow,
                           sourceStyle_ + match.y * sourceRow + match.x * kStyleBytes, sourceRow,
                           patch());
    }
    // Of a match at a place, beside the others' matches.
    std::int64_t penalty(Match place) const {
        const std::int32_t use = *usageAt(place) - overlap(place, before_, patch());
        return (std::int64_t(use) * s_.penalty) >> 16;
    }
    const std::int32_t* usageAt(Match place) const {
        return usage_ + std::ptrdiff_t(place.y) * s_.usage.stride + place.x;
    }

    template <int Step>
    void searchPixel(int x, int y) {
        const int width = s_.target->width;
        const std::ptrdiff_t at = std::ptrdiff_t(y) * width + x;
        const int px = x - Step, py = y - Step;
        const Match mine = s_.matches[at];
        Match beside = mine, above = mine;
        if (px >= 0 && px < width && s_.moved[at - Step] >= s_.retry) {
            beside = moved(s_.matches[at - Step], Step, 0, mine);
        }
        if (py >= s_.firstRow && py < s_.endRow && s_.moved[at - Step * width] >= s_.retry) {
            above = moved(s_.matches[at - Step * width], 0, Step, mine);
        }
        const bool tries = s_.leaves && !s_.tried[at];
        if (!s_.farRadii && !s_.proposed && !tries && beside == mine && above == mine) return;
        match_ = before_ = mine;
        distance_ = s_.distances[at];
        total_ = distance_ + penalty(match_);
        lane_.take(targetCorner(x, y), targetRow_);
        if (s_.proposed && s_.proposed[at] != mine) attempt(s_.proposed[at]);
        if (beside != mine) {
            attemptNear<Step>(beside, at - Step, targetCorner(x, y), pixelBytes(), pixelBytes(),
                              targetRow_, sourceRow_);
        }
        if (above != mine && above != beside) {
            attemptNear<Step>(above, at - Step * width, targetCorner(x, y), targetRow_, sourceRow_,
                              pixelBytes(), pixelBytes());
        }
        if (tries && total_ >= s_.leafFrom) tryLeaf(at);
        if (s_.farRadii && total_ >= s_.randomFrom) tryAround(at);
        if (match_ != before_) keep(at, x, y);
    }

    void keep(std::ptrdiff_t at, int x, int y) {
        s_.matches[at] = match_;
        s_.distances[at] = distance_;
        s_.guides[at] = distance_ - styleAt(x, y, match_);
        s_.moved[at] = s_.stamp;
        const std::int64_t sums = std::int64_t(*usageAt(match_)) - *usageAt(before_);
        useChange_ += 2 * (sums + patch() * patch() - overlap(match_, before_, patch()));
        addUse(before_, -1);
        addUse(match_, 1);
        s_.moves->push_back({before_, match_});
    }

    // A neighbour's match moved on; `otherwise` where no patch may be.
    Match moved(Match near, int dx, int dy, Match otherwise) const {
        const int x = near.x + dx, y = near.y + dy;
        if (!s_.bounds.holds(x, y)) return otherwise;
        return {static_cast<std::uint16_t>(x), static_cast<std::uint16_t>(y)};
    }

    void addUse(Match place, int sign) const {
        if (Patch == 5) return s_.usage.addFive(place, sign);
        s_.usage.add(place, patch(), sign);
    }

    // The matches of a pixel's leaf, the most promising first, but for those that cannot be better.
    void tryLeaf(std::ptrdiff_t at) {
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
        const std::uint8_t* sketch = leaves.sketches + first * kNumbers * pixelBytes();
        // No branches here: which of them could be better, a processor cannot foresee.
        std::int64_t least[kMostOfLeaf];
        std::int32_t near[kMostOfLeaf];
        int count = 0;
        for (std::int32_t i = first; i < end; ++i, sketch += kNumbers * pixelBytes()) {
            least[count] = lane_.least(sketch);
            near[count] = i;
            count += least[count] < total_;
        }
        int left = 0;
        for (int i = 0; i < count; ++i) {
            const Match place = leaves.places[near[i]];
            const std::int64_t all = least[i] + penalty(place);
            prefetch(corner(place) + (patch() / 2) * sourceRow_);
            least[left] = all;
            near[left] = near[i];
            left += (all < total_) & (place != match_);
        }
        for (int tries = s_.leafTries; left > 0 && tries > 0; --tries) {
            int best = 0;
            for (int i = 1; i < left; ++i) best = least[i] < least[best] ? i : best;
            if (least[best] >= total_) break;
            attempt(leaves.places[near[best]]);
            --left;
            least[best] = least[left];
            near[best] = near[left];
        }
    }

    // Random search in windows around the match: all steps are drawn first, so that memory answers
    // for the later ones while the first are looked at.
    void tryAround(std::ptrdiff_t at) {
        Match drawn[kStepsOfSet];
        const std::uint64_t bits = mixed(s_.seed + std::uint64_t(at));
        const Step* steps = s_.steps + (bits % kStepSets) * kStepsOfSet;
        const int radii = total_ >= s_.farFrom ? s_.farRadii : s_.radii;
        for (int i = 0; i < radii; i += kEight) stepEight(steps + i, drawn + i);
        for (int i = 0; i < radii; ++i) {
            prefetch(usageAt(drawn[i]));
            const std::uint8_t* first = corner(drawn[i]) + (patch() / 2) * sourceRow_;
            prefetch(first);
            prefetch(first + 64);
        }
        for (int i = 0; i < radii; ++i) {
            if (drawn[i] != match_) attempt(drawn[i]);
        }
    }

    // Eight steps from the match. One that leaves the bounds is mirrored at the edge that it passed,
    // and ends at the other edge at most.
    void stepEight(const Step* steps, Match* places) const {
        typedef std::int16_t Pairs __attribute__((vector_size(2 * kEight * sizeof(std::int16_t))));
        const Pairs from = pairs<Pairs>(match_.x, match_.y);
        const Pairs low = pairs<Pairs>(s_.bounds.left, s_.bounds.top) - from;
        const Pairs high = pairs<Pairs>(s_.bounds.right, s_.bounds.bottom) - from;
        Pairs step;
        std::memcpy(&step, steps, sizeof step);
        step = step > high ? 2 * high - step : step < low ? 2 * low - step : step;
        step = step > high ? high : step < low ? low : step;
        step += from;
        std::memcpy(static_cast<void*>(places), &step, sizeof step);
    }

    template <class Pairs>
    static Pairs pairs(int x, int y) {
        const std::int16_t a = static_cast<std::int16_t>(x), b = static_cast<std::int16_t>(y);
        return Pairs{a, b, a, b, a, b, a, b, a, b, a, b, a, b, a, b};
    }

    void attempt(Match place) {
        const std::int64_t extra = penalty(place), bound = total_ - extra;
        if (bound <= 0) return;
        const std::uint32_t found = lane_.distance(corner(place), sourceRow_, bound);
        if (found < bound) take(place, found, extra);
    }

    // The match of the neighbour at `near`, moved on by a pixel; steps across lead there, steps along
    // to the next pixel of a strip. The patches share all but a strip of each, so that the distance
    // follows from the neighbour's.
    template <int Step>
    void attemptNear(Match place, std::ptrdiff_t near, const std::uint8_t* target,
                     std::ptrdiff_t targetAcross, std::ptrdiff_t sourceAcross,
                     std::ptrdiff_t targetAlong, std::ptrdiff_t sourceAlong) {
        const std::int64_t extra = penalty(place), bound = total_ - extra;
        if (bound <= 0) return;
        const std::uint8_t* source = corner(place);
        const int come = Step > 0 ? patch() - 1 : 0, gone = Step > 0 ? -1 : patch();
        const std::uint32_t found =
            s_.distances[near] +
            lane_.exchange({target + come * targetAcross, source + come * sourceAcross},
                           {target + gone * targetAcross, source + gone * sourceAcross},
                           targetAlong, sourceAlong);
        if (found < bound) take(place, found, extra);
    }

    void take(Match place, std::uint32_t distance, std::int64_t penalty) {
        match_ = place;
        distance_ = distance;
        total_ = distance + penalty;
    }

    const Sweep& s_;
    Lane lane_;
    const std::ptrdiff_t targetRow_, sourceRow_;
    const std::uint8_t* const targetCorner_;
    const std::uint8_t* const sourceCorner_;
    const std::uint8_t* const targetStyle_;  // of their corners
    const std::uint8_t* const sourceStyle_;
    const std::int32_t* const usage_;  // of place 0, 0
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

template <class Lane>
void describeAll(const Describe& d) {
    const int reach = d.patch / 2, bytes = d.source->pixelBytes, size = kNumbers * bytes;
    Lane lane(d.weights, bytes / kPixelBlock, d.patch);
    std::int16_t* numbers = d.numbers;
    std::uint8_t* sketch = d.sketches;
    for (int i = 0; i < d.columns; ++i, numbers += size, sketch += size) {
        lane.take(d.source->at(d.x + i * d.spacing - reach, d.y - reach),
                  std::ptrdiff_t(d.source->stride) * bytes);
        std::memcpy(numbers, lane.describe(), std::size_t(size) * sizeof *numbers);
        lane.copySketch(sketch);
    }
}

template <template <int, int> class Lane>
void describeWith(const Describe& d) {
    const int blocks = d.source->pixelBytes / kPixelBlock;
    if (d.patch == 5 && blocks == 1) return describeAll<Lane<5, 1>>(d);
    if (d.patch == 5 && blocks == 2) return describeAll<Lane<5, 2>>(d);
    return describeAll<Lane<0, 0>>(d);
}

template <template <int, int> class Lane>
void addStyleWith(const Sweep& sweep, const std::uint8_t* wanted) {
    if (sweep.patch == 5) return Searcher<Lane<5, 1>, 5, 1>(sweep).addStyle(wanted);
    return Searcher<Lane<0, 0>, 0, 0>(sweep).addStyle(wanted);
}

}  // namespace
}  // namespace ebsynth
