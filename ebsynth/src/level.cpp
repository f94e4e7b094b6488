#include "level.h"

#include <algorithm>
#include <cmath>

#include "random.h"

namespace ebsynth {
namespace {

constexpr int kRowsOfBand = 16;  // bands of rows are searched side by side
constexpr int kMostBands = 16;
constexpr int kFewShare = 8;  // few patches: one in so many

}  // namespace

Level::Level(const Layout& layout, const Kernels& kernels, Threads& threads, const Packed& source,
             Packed target, Field field, int patch, std::uint64_t seed)
    : layout_(layout), kernels_(kernels), threads_(threads), source_(source), patch_(patch),
      seed_(seed), target_(std::move(target)), field_(std::move(field)),
      distances_(field_.matches.size()), active_(field_.matches.size(), 1),
      moved_(field_.matches.size()), change_(field_.matches.size()),
      wanted_(field_.matches.size()),
      bands_(std::clamp(target_.height / kRowsOfBand, 1, kMostBands)),
      usage_(source.width, source.height, patch, bands_ > 1 ? threads.count() : 0) {}

void Level::refine(int rounds, const Effort& effort, double uniformity,
                   const std::function<void(int)>& begun) {
    setPenalty(uniformity);
    vote(target_, source_, field_, patch_, active_, change_, threads_);
    measure(active_);
    usage_.count(field_.matches, threads_);
    const std::ptrdiff_t few = std::ptrdiff_t(active_.size()) / kFewShare;
    const int most = effort.dwells ? 2 * rounds : rounds;
    for (int round = 0; round < rounds || (round < most && active() <= few); ++round) {
        begun(std::min(round, rounds));
        std::fill(moved_.begin(), moved_.end(), std::uint8_t(0));
        for (int sweep = 0; sweep < effort.sweeps; ++sweep) search(sweep);
        revote();
        choose(effort);
        if (active() == 0) break;
    }
}

void Level::setPenalty(double uniformity) {
    const double area = double(patch_) * patch_;
    const double best = double(target_.width) * target_.height /
                        (double(source_.width) * source_.height) * area;
    const double one = uniformity * layout_.scale / (area * best) * 65536.0;
    penalty_ = static_cast<std::int64_t>(std::llround(std::min(one, 2147483647.0)));
}

Sweep Level::sweepOf(int band) {
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
    sweep.firstRow = static_cast<int>(std::int64_t(target_.height) * band / bands_);
    sweep.endRow = static_cast<int>(std::int64_t(target_.height) * (band + 1) / bands_);
    return sweep;
}

// One sweep over all bands: every second one, then the others, so that no two neighbours are at
// work together. A band sees its neighbours as they are when it begins and the source's use of the
// others as it was then, whoever runs first: the number of threads changes nothing.
void Level::search(int number) {
    seed_ = mixed(seed_);
    const bool forward = number % 2 == 0;
    searchEvery(forward, 0);
    if (bands_ > 1) searchEvery(forward, 1);
}

// Every second band, the one with most to search first, so that threads end together.
std::vector<int> Level::bandsByWork(int first) {
    std::vector<std::pair<std::ptrdiff_t, int>> works;
    for (int band = first; band < bands_; band += 2) {
        const Sweep rows = sweepOf(band);
        const auto begin = active_.begin() + std::ptrdiff_t(rows.firstRow) * target_.width;
        const auto end = active_.begin() + std::ptrdiff_t(rows.endRow) * target_.width;
        works.emplace_back(-std::count(begin, end, std::uint8_t(1)), band);
    }
    std::sort(works.begin(), works.end());
    std::vector<int> bands;
    for (const auto& work : works) bands.push_back(work.second);
    return bands;
}

void Level::searchEvery(bool forward, int first) {
    const int tasks = (bands_ - first + 1) / 2;
    std::vector<std::vector<Move>> moves(static_cast<std::size_t>(tasks));
    const std::vector<int> bands = bandsByWork(first);
    threads_.run(tasks, [&](int task, int thread) {
        Sweep sweep = sweepOf(bands[std::size_t(task)]);
        sweep.forward = forward;
        sweep.usage = tasks > 1 ? usage_.copyFor(thread) : usage_.shared();
        sweep.largestRadius = std::max(source_.width, source_.height);
        sweep.seed = seed_;
        if (tasks > 1) sweep.moves = &moves[std::size_t(task)];
        kernels_.sweep(sweep);
    });
    if (tasks > 1) usage_.follow(moves, field_.matches, threads_);
}

void Level::revote() {
    dilate(moved_, target_.width, patch_ / 2, 1, wanted_);
    vote(target_, source_, field_, patch_, wanted_, change_, threads_);
    dilate(change_, target_.width, patch_ / 2, 1, wanted_);
    measure(wanted_);
}

// The patches that the next round searches.
void Level::choose(const Effort& effort) {
    dilate(change_, target_.width, patch_ / 2, effort.visible, active_);
    std::uint64_t sum = 0;
    for (std::uint32_t distance : distances_) sum += distance;
    const std::uint64_t limit = sum * std::uint64_t(effort.conspicuous) / distances_.size();
    for (std::size_t i = 0; i < active_.size(); ++i) active_[i] |= distances_[i] > limit;
}

std::ptrdiff_t Level::active() const {
    return std::count(active_.begin(), active_.end(), std::uint8_t(1));
}

void Level::measure(const Mask& wanted) {
    threads_.run(bands_, [&](int band, int) { kernels_.measure(sweepOf(band), wanted.data()); });
}

}  // namespace ebsynth
