#include "level.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "random.h"

namespace ebsynth {
namespace {

constexpr int kRowsOfBand = 10;  // bands of rows are searched side by side
constexpr int kMostBands = 24;
constexpr int kFewShare = 8;  // few patches: one in so many

}  // namespace

Level::Level(const Layout& layout, const Kernels& kernels, Threads& threads, const Packed& source,
             Packed target, Field field, int patch, std::uint64_t seed)
    : layout_(layout), kernels_(kernels), threads_(threads), source_(source), patch_(patch),
      seed_(seed), target_(std::move(target)), field_(std::move(field)),
      distances_(field_.matches.size()), active_(field_.matches.size(), 1),
      moved_(field_.matches.size()), change_(field_.matches.size()),
      wanted_(field_.matches.size()),
      mostBands_(std::clamp(target_.height / kRowsOfBand, 1, kMostBands)),
      works_(std::size_t(target_.height)),
      usage_(source.width, source.height, patch, mostBands_ > 1 ? threads.count() : 0) {}

void Level::refine(int rounds, const Effort& effort, double uniformity,
                   const std::function<void(int)>& begun) {
    setPenalty(uniformity);
    begin();
    const std::ptrdiff_t few = std::ptrdiff_t(active_.size()) / kFewShare;
    const int most = effort.dwells ? 2 * rounds : rounds;
    for (int round = 0; round < rounds || (round < most && allWork_ <= few); ++round) {
        begun(std::min(round, rounds));
        std::fill(moved_.begin(), moved_.end(), std::uint8_t(0));
        for (int sweep = 0; sweep < effort.sweeps; ++sweep) search(sweep);
        revote();
        choose(effort);
        if (allWork_ == 0) break;
    }
}

// All patches vote and are measured and counted.
void Level::begin() {
    threads_.runRows(target_.height, [&](int first, int end) {
        voteRows(target_, source_, field_, patch_, active_, change_, first, end);
    });
    target_.repeatEdges();
    threads_.runRows(target_.height, [&](int first, int end) {
        kernels_.measure(sweepOf(first, end), active_.data());
    });
    usage_.count(field_.matches, threads_);
    std::fill(works_.begin(), works_.end(), target_.width);
    plan();
}

void Level::setPenalty(double uniformity) {
    const double area = double(patch_) * patch_;
    const double best = double(target_.width) * target_.height /
                        (double(source_.width) * source_.height) * area;
    const double one = uniformity * layout_.scale / (area * best) * 65536.0;
    // Times any usage sum, which all patches at one place make largest, it stays inside 63 bits.
    const double most = std::ldexp(1.0, 62) / (double(target_.width) * target_.height * area);
    penalty_ = static_cast<std::int64_t>(std::llround(std::min(one, most)));
}

Sweep Level::sweepOf(int firstRow, int endRow) {
    Sweep sweep;
    sweep.target = &target_;
    sweep.source = &source_;
    sweep.weights = layout_.weights.data();
    sweep.patch = patch_;
    sweep.bounds = Bounds(source_.width, source_.height, patch_);
    sweep.matches = field_.matches.data();
    sweep.distances = distances_.data();
    sweep.active = active_.data();
    sweep.moved = moved_.data();
    sweep.penalty = penalty_;
    sweep.firstRow = firstRow;
    sweep.endRow = endRow;
    return sweep;
}

// One sweep over all bands: every second one, then the others, so that no two neighbours are at
// work together. A band sees its neighbours as they are when it begins and the source's use of the
// others as it was then, whoever runs first: the number of threads changes nothing.
void Level::search(int number) {
    seed_ = mixed(seed_);
    const bool forward = number % 2 == 0;
    for (int first = 0; first < 2; ++first) searchEverySecond(forward, first);
}

void Level::searchEverySecond(bool forward, int first) {
    const int bands = static_cast<int>(firstRows_.size()) - 1, tasks = (bands - first + 1) / 2;
    const bool apart = tasks > 1;
    moves_.resize(std::size_t(tasks));
    threads_.run(tasks, [&](int task, int thread) {
        const std::size_t band = std::size_t(2 * task + first);
        Sweep sweep = sweepOf(firstRows_[band], firstRows_[band + 1]);
        sweep.forward = forward;
        sweep.usage = apart ? usage_.copyFor(thread) : usage_.shared();
        sweep.largestRadius = std::max(source_.width, source_.height);
        sweep.seed = seed_;
        if (apart) {
            sweep.moves = &moves_[std::size_t(task)];
            sweep.moves->clear();
        }
        kernels_.sweep(sweep);
        if (apart) usage_.giveBack(thread, *sweep.moves);
    });
    if (apart) usage_.follow(moves_, field_.matches, threads_);
}

void Level::revote() {
    threads_.runRows(target_.height, [&](int first, int end) {
        dilateRows(moved_, target_.width, patch_ / 2, 1, wanted_, first, end);
        voteRows(target_, source_, field_, patch_, wanted_, change_, first, end);
    });
    target_.repeatEdges();
}

// Measures the patches that changed, and finds those that the next round searches.
void Level::choose(const Effort& effort) {
    const int width = target_.width, reach = patch_ / 2;
    std::vector<std::uint64_t> sums(std::size_t(target_.height));
    threads_.runRows(target_.height, [&](int first, int end) {
        dilateRows(change_, width, reach, 1, wanted_, first, end);
        kernels_.measure(sweepOf(first, end), wanted_.data());
        dilateRows(change_, width, reach, effort.visible, active_, first, end);
        for (int y = first; y < end; ++y) {
            const std::uint32_t* row = &distances_[std::size_t(y) * std::size_t(width)];
            sums[std::size_t(y)] = std::accumulate(row, row + width, std::uint64_t(0));
        }
    });
    const std::uint64_t sum = std::accumulate(sums.begin(), sums.end(), std::uint64_t(0));
    const std::uint64_t limit = sum * std::uint64_t(effort.conspicuous) / distances_.size();
    threads_.runRows(target_.height, [&](int first, int end) {
        for (int y = first; y < end; ++y) {
            const std::uint32_t* row = &distances_[std::size_t(y) * std::size_t(width)];
            std::uint8_t* active = &active_[std::size_t(y) * std::size_t(width)];
            int work = 0;
            for (int x = 0; x < width; ++x) {
                active[x] |= row[x] > limit;
                work += active[x];
            }
            works_[std::size_t(y)] = work;
        }
    });
    plan();
}

// Bands of rows that have as much to search each, so that threads end together.
void Level::plan() {
    allWork_ = std::accumulate(works_.begin(), works_.end(), std::ptrdiff_t(0));
    firstRows_.assign(1, 0);
    std::ptrdiff_t before = 0, band = 0;
    for (int y = 0; y < target_.height; ++y) {
        const std::ptrdiff_t work = works_[std::size_t(y)];
        const std::ptrdiff_t wanted =
            work ? (2 * before + work) * mostBands_ / (2 * allWork_) : band;
        if (wanted > band) {
            band = wanted;
            if (before) firstRows_.push_back(y);
        }
        before += work;
    }
    firstRows_.push_back(target_.height);
}

}  // namespace ebsynth
