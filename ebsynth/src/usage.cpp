#include "usage.h"

#include <algorithm>
#include <cstring>

namespace ebsynth {
namespace {

constexpr std::size_t kRecountShare = 6;  // counting all costs as much as one move in so many
                                          // matches
constexpr int kColumnsOfTask = 64;

}  // namespace

UsageMap::UsageMap(int width, int height, int patch)
    : height_(height), patch_(patch), pad_(patch - 1), stride_(width + 2 * (patch - 1)) {
    for (std::vector<std::int32_t>& sums : sums_) {
        sums.resize(static_cast<std::size_t>(stride_) * static_cast<std::size_t>(height + 2 * pad_));
    }
}

// Twice a box sum of the patch's side, along rows and along columns: a tent around every match.
void UsageMap::count(const std::vector<Match>& matches, Threads& threads) {
    std::vector<std::int32_t>& sums = sums_[0];
    std::fill(sums.begin(), sums.end(), 0);
    for (const Match& match : matches) ++*of(sums).at(match.x, match.y);
    const int rows = height_ + 2 * pad_;
    threads.runRows(rows, [&](int first, int end) {
        for (int y = first; y < end; ++y) sumRow(sums.data() + std::ptrdiff_t(y) * stride_);
    });
    threads.run((stride_ + kColumnsOfTask - 1) / kColumnsOfTask, [&](int task, int) {
        const int first = task * kColumnsOfTask;
        sumColumns(first, std::min(first + kColumnsOfTask, stride_));
    });
    sums_[1] = sums;
    squares_ = 0;
    for (const Match& match : matches) squares_ += *of(sums).at(match.x, match.y);
}

void UsageMap::sumRow(std::int32_t* row) const {
    const int reach = pad_, last = stride_ - reach;
    std::vector<std::int32_t> boxes(row, row + stride_);
    std::int32_t *__restrict box = boxes.data(), *__restrict to = row;
    for (int i = 1; i <= reach; ++i) {
        for (int x = 0; x < last; ++x) box[x] += to[x + i];
    }
    std::copy(box + reach, box + last, to + reach);
    for (int i = 1; i <= reach; ++i) {
        for (int x = reach; x < last; ++x) to[x] += box[x - i];
    }
}

// Columns first .. end - 1, row after row, in place. Box sums follow from those of the row before;
// rows and their sums are kept until they leave the box.
void UsageMap::sumColumns(int first, int end) {
    const int rows = height_ + 2 * pad_, width = end - first;
    const std::size_t size = static_cast<std::size_t>(width);
    std::vector<std::int32_t> kept(std::size_t(patch_) * size), boxes(kept.size()), box(size), tent(size);
    std::int32_t *__restrict b = box.data(), *__restrict t = tent.data();
    for (int y = 0; y < rows; ++y) {
        std::int32_t* __restrict row = sums_[0].data() + std::ptrdiff_t(y) * stride_ + first;
        const std::size_t slot = std::size_t(y % patch_) * size;
        std::int32_t *__restrict old = &kept[slot], *__restrict oldBox = &boxes[slot];
        // The row that leaves the box is the one before, and lies in the slot before.
        const std::int32_t* __restrict gone = &kept[std::size_t((y + patch_ - 1) % patch_) * size];
        const std::int32_t* __restrict come =
            y + pad_ < rows ? row + std::ptrdiff_t(pad_) * stride_ : nullptr;
        if (come) {
            for (int x = 0; x < width; ++x) b[x] += come[x];
        }
        if (y > 0) {
            for (int x = 0; x < width; ++x) b[x] -= gone[x];
        }
        for (int x = 0; x < width; ++x) {
            old[x] = row[x];
            t[x] += b[x] - oldBox[x];
            oldBox[x] = b[x];
            row[x] = t[x];
        }
    }
}

void UsageMap::join(const std::vector<Move> (&moves)[kLanes],
                    const std::int64_t (&changes)[kLanes], const std::vector<Match>& matches,
                    Threads& threads) {
    if (moves[0].size() + moves[1].size() > matches.size() / kRecountShare) {
        return count(matches, threads);
    }
    std::int64_t followed[kLanes];
    threads.run(kLanes, [&](int task, int) {
        followed[task] = follow(of(sums_[task]), moves[1 - task]);
    });
    squares_ += changes[0] + followed[0];
}

// How the sum of squares changes is answered.
std::int64_t UsageMap::follow(const Usage& usage, const std::vector<Move>& moves) const {
    std::int64_t change = 0;
    const int area = patch_ * patch_;
    for (const Move& move : moves) {
        change += 2 * (std::int64_t(*usage.at(move.to.x, move.to.y)) -
                       *usage.at(move.from.x, move.from.y) + area -
                       overlap(move.from, move.to, patch_));
        if (patch_ == 5) {
            usage.addFive(move.from, -1);
            usage.addFive(move.to, 1);
        } else {
            usage.add(move.from, patch_, -1);
            usage.add(move.to, patch_, 1);
        }
    }
    return change;
}

}  // namespace ebsynth
