// The search, over a `Lane` that knows the instruction set. Included by every kernels_*.cpp.
//
// A Lane holds the target's patch in the form its arithmetic wants and adds up rows of distance:
//   Lane(const std::int16_t* weights, int blocks, int patch)
//   void take(const std::uint8_t* corner, std::ptrdiff_t rowBytes)   the target's patch
//   std::uint32_t distance(const std::uint8_t* corner, std::ptrdiff_t rowBytes, std::int64_t bound)
// `distance` may stop early and then returns anything above `bound`. Most are a `RowLane`.

#include <algorithm>

#include "kernels.h"
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
        : weights_(weights), blocks_(blocks), patch_(patch) {}

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

 private:
    const std::int16_t* weights_;
    const int blocks_, patch_;
    const std::uint8_t* target_ = nullptr;
    std::ptrdiff_t targetRow_ = 0;
};

template <class Lane>
class Searcher {
 public:
    explicit Searcher(const Sweep& sweep)
        : s_(sweep), lane_(sweep.weights, sweep.source->pixelBytes / kPixelBlock, sweep.patch),
          radius_(sweep.patch / 2),
          targetRow_(std::ptrdiff_t(sweep.target->stride) * sweep.target->pixelBytes),
          sourceRow_(std::ptrdiff_t(sweep.source->stride) * sweep.source->pixelBytes) {
        for (int r = sweep.largestRadius; r >= 1; r /= 2) radii_[radiusCount_++] = r;
    }

    void sweep() {
        const int width = s_.target->width, step = s_.forward ? 1 : -1;
        int y = s_.forward ? s_.firstRow : s_.endRow - 1;
        for (int rows = s_.endRow - s_.firstRow; rows > 0; --rows, y += step) {
            const std::uint8_t* active = s_.active + std::ptrdiff_t(y) * width;
            int x = s_.forward ? 0 : width - 1;
            for (int columns = width; columns > 0; --columns, x += step) {
                if (active[x]) searchPixel(x, y);
            }
        }
    }

    void measure(const std::uint8_t* wanted) {
        const int width = s_.target->width;
        for (int y = s_.firstRow; y < s_.endRow; ++y) {
            for (int x = 0; x < width; ++x) {
                const std::ptrdiff_t at = std::ptrdiff_t(y) * width + x;
                if (!wanted[at]) continue;
                const Match match = s_.matches[at];
                lane_.take(s_.target->at(x - radius_, y - radius_), targetRow_);
                s_.distances[at] = lane_.distance(corner(match.x, match.y), sourceRow_, kNoBound);
            }
        }
    }

 private:
    static constexpr std::int64_t kNoBound = std::int64_t(1) << 62;

    const std::uint8_t* corner(int x, int y) const {
        return s_.source->at(x - radius_, y - radius_);
    }
    std::int64_t penalty(int x, int y) const {
        return (std::int64_t(*s_.usage.at(x, y)) * s_.penalty) >> 16;
    }

    void searchPixel(int x, int y) {
        const int width = s_.target->width, step = s_.forward ? 1 : -1;
        const std::ptrdiff_t at = std::ptrdiff_t(y) * width + x;
        match_ = s_.matches[at];
        distance_ = s_.distances[at];
        total_ = distance_ + penalty(match_.x, match_.y);
        const Match before = match_;
        lane_.take(s_.target->at(x - radius_, y - radius_), targetRow_);
        const int px = x - step, py = y - step;
        if (px >= 0 && px < width) {
            const Match near = s_.matches[at - step];
            tryInside(near.x + step, near.y);
        }
        if (py >= 0 && py < s_.target->height) {
            const Match near = s_.matches[std::ptrdiff_t(py) * width + x];
            tryInside(near.x, near.y + step);
        }
        if (radiusCount_) tryAround(at);
        if (match_ != before) {
            s_.matches[at] = match_;
            s_.distances[at] = distance_;
            s_.moved[at] = 1;
            if (s_.moves) s_.moves->push_back({before, match_});
        }
    }

    void tryInside(int x, int y) {
        if (s_.bounds.holds(x, y) && !(x == match_.x && y == match_.y)) attempt(x, y);
    }

    // Random search: windows halve around the match; all are drawn first, so that memory answers
    // for the later ones while the first are looked at.
    void tryAround(std::ptrdiff_t at) {
        Match drawn[16];
        std::uint64_t state = s_.seed + std::uint64_t(at) * 0x632BE59BD9B4E019ull;
        for (int i = radiusCount_ - 1; i >= 0; --i) {
            state = mixed(state);
            const int r = radii_[i];
            const int left = std::max(s_.bounds.left, match_.x - r);
            const int right = std::min(s_.bounds.right, match_.x + r);
            const int top = std::max(s_.bounds.top, match_.y - r);
            const int bottom = std::min(s_.bounds.bottom, match_.y + r);
            const int x = left + below(static_cast<std::uint32_t>(state), right - left + 1);
            const int y = top + below(static_cast<std::uint32_t>(state >> 32), bottom - top + 1);
            drawn[i] = {static_cast<std::uint16_t>(x), static_cast<std::uint16_t>(y)};
            prefetch(s_.usage.at(x, y));
            const std::uint8_t* first = corner(x, y);
            prefetch(first);
            prefetch(first + sourceRow_);
        }
        for (int i = radiusCount_ - 1; i >= 0; --i) {
            if (drawn[i] != match_) attempt(drawn[i].x, drawn[i].y);
        }
    }

    void attempt(int x, int y) {
        const std::int64_t extra = penalty(x, y), bound = total_ - extra;
        if (bound <= 0) return;
        const std::uint32_t found = lane_.distance(corner(x, y), sourceRow_, bound);
        if (found >= bound) return;
        s_.usage.add(match_, s_.patch, -1);
        match_ = {static_cast<std::uint16_t>(x), static_cast<std::uint16_t>(y)};
        s_.usage.add(match_, s_.patch, 1);
        distance_ = found;
        total_ = found + penalty(x, y);
    }

    const Sweep& s_;
    Lane lane_;
    const int radius_;
    const std::ptrdiff_t targetRow_, sourceRow_;
    int radii_[16] = {};
    int radiusCount_ = 0;
    Match match_;
    std::uint32_t distance_ = 0;
    std::int64_t total_ = 0;
};

template <template <int, int> class Lane>
void sweepWith(const Sweep& sweep) {
    const int blocks = sweep.source->pixelBytes / kPixelBlock;
    if (sweep.patch == 5 && blocks == 1) return Searcher<Lane<5, 1>>(sweep).sweep();
    if (sweep.patch == 5 && blocks == 2) return Searcher<Lane<5, 2>>(sweep).sweep();
    return Searcher<Lane<0, 0>>(sweep).sweep();
}

template <template <int, int> class Lane>
void measureWith(const Sweep& sweep, const std::uint8_t* wanted) {
    const int blocks = sweep.source->pixelBytes / kPixelBlock;
    if (sweep.patch == 5 && blocks == 1) return Searcher<Lane<5, 1>>(sweep).measure(wanted);
    if (sweep.patch == 5 && blocks == 2) return Searcher<Lane<5, 2>>(sweep).measure(wanted);
    return Searcher<Lane<0, 0>>(sweep).measure(wanted);
}

}  // namespace
}  // namespace ebsynth
