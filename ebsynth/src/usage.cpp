#include "usage.h"

#include <algorithm>
#include <cstring>

namespace ebsynth {
namespace {

constexpr std::size_t kRecountShare = 12;  // counting all costs as much as one move in so many
                                           // matches
constexpr std::size_t kCopyShare = 256;    // copying all costs as much as one move in so many sums
constexpr int kColumnsOfTask = 64;

// A patch moves from one place to another.
void relocate(const Usage& counts, int patch, Match from, Match to) {
    counts.add(from, patch, -1);
    counts.add(to, patch, 1);
}

}  // namespace

UsageMap::UsageMap(int width, int height, int patch, int threads)
    : height_(height), patch_(patch), pad_(patch - 1),
      stride_(width + 2 * (patch - 1)),
      sums_(static_cast<std::size_t>(stride_) * static_cast<std::size_t>(height + 2 * pad_)),
      copies_(static_cast<std::size_t>(threads)) {}

// Twice a box sum of the patch's side, along rows and along columns: a tent around every match.
void UsageMap::count(const std::vector<Match>& matches, Threads& threads) {
    settled();
    std::fill(sums_.begin(), sums_.end(), 0);
    for (const Match& match : matches) {
        ++sums_[static_cast<std::size_t>(match.y + pad_) * static_cast<std::size_t>(stride_) +
                match.x + static_cast<std::size_t>(pad_)];
    }
    const int rows = height_ + 2 * pad_;
    threads.runRows(rows, [&](int first, int end) {
        for (int y = first; y < end; ++y) sumRow(sums_.data() + std::ptrdiff_t(y) * stride_);
    });
    threads.run((stride_ + kColumnsOfTask - 1) / kColumnsOfTask, [&](int task, int) {
        const int first = task * kColumnsOfTask;
        sumColumns(first, std::min(first + kColumnsOfTask, stride_));
    });
}

void UsageMap::sumRow(std::int32_t* row) const {
    const std::vector<std::int32_t> before(row, row + stride_);
    const int reach = pad_;
    for (int x = reach; x < stride_ - reach; ++x) row[x] *= patch_;
    for (int i = 1; i <= reach; ++i) {
        const std::int32_t *left = before.data() - i, *right = before.data() + i;
        const int factor = patch_ - i;
        for (int x = reach; x < stride_ - reach; ++x) row[x] += (left[x] + right[x]) * factor;
    }
}

// Columns first .. end - 1, row after row: the sum is written in place, so that rows above are kept
// as they were.
void UsageMap::sumColumns(int first, int end) {
    const int rows = height_ + 2 * pad_, reach = pad_, width = end - first;
    const std::size_t bytes = std::size_t(width) * sizeof(std::int32_t);
    std::vector<std::int32_t> kept(std::size_t(reach) * std::size_t(width));
    std::vector<std::int32_t> before(static_cast<std::size_t>(width));
    for (int y = 0; y < rows; ++y) {
        std::int32_t* row = sums_.data() + std::ptrdiff_t(y) * stride_ + first;
        std::memcpy(before.data(), row, bytes);
        for (int x = 0; x < width; ++x) row[x] *= patch_;
        for (int i = 1; i <= reach; ++i) {
            const int factor = patch_ - i;
            if (y + i < rows) {
                const std::int32_t* below = row + std::ptrdiff_t(i) * stride_;
                for (int x = 0; x < width; ++x) row[x] += below[x] * factor;
            }
            if (y >= i) {
                const std::int32_t* above = kept.data() + std::ptrdiff_t((y - i) % reach) * width;
                for (int x = 0; x < width; ++x) row[x] += above[x] * factor;
            }
        }
        if (reach) {
            std::memcpy(kept.data() + std::ptrdiff_t(y % reach) * width, before.data(), bytes);
        }
    }
}

void UsageMap::follow(const std::vector<std::vector<Move>>& moves,
                      const std::vector<Match>& matches, Threads& threads) {
    std::size_t fresh = 0;
    for (const std::vector<Move>& some : moves) {
        fresh += some.size();
        recent_.insert(recent_.end(), some.begin(), some.end());
    }
    if (fresh > matches.size() / kRecountShare) return count(matches, threads);
    if (recent_.size() <= sums_.size() / kCopyShare) return;
    const int tasks = threads.count(), rows = height_ + 2 * pad_;
    threads.run(tasks, [&](int task, int) {
        followRows(rows * task / tasks - pad_, rows * (task + 1) / tasks - pad_);
    });
    settled();
}

void UsageMap::followRows(int first, int end) {
    const Usage counts = of(sums_);
    const auto add = [&](Match place, int sign) {
        counts.addRows(place, patch_, sign, std::max(-pad_, first - place.y),
                       std::min(pad_, end - 1 - place.y));
    };
    for (const Move& move : recent_) {
        add(move.from, -1);
        add(move.to, 1);
    }
}

// The counts lack nothing now, and differ from all copies.
void UsageMap::settled() {
    recent_.clear();
    ++version_;
}

Usage UsageMap::shared() {
    followRows(-pad_, height_ + pad_);
    settled();
    return of(sums_);
}

Usage UsageMap::copyFor(int thread) {
    Copy& copy = copies_[static_cast<std::size_t>(thread)];
    if (copy.version != version_) {
        copy.sums = sums_;
        copy.version = version_;
        copy.followed = 0;
    }
    const Usage usage = of(copy.sums);
    for (; copy.followed < recent_.size(); ++copy.followed) {
        relocate(usage, patch_, recent_[copy.followed].from, recent_[copy.followed].to);
    }
    return usage;
}

void UsageMap::giveBack(int thread, const std::vector<Move>& moves) {
    Copy& copy = copies_[static_cast<std::size_t>(thread)];
    if (moves.size() > sums_.size() / kCopyShare) {
        copy.version = 0;
        return;
    }
    for (const Move& move : moves) relocate(of(copy.sums), patch_, move.to, move.from);
}

}  // namespace ebsynth
