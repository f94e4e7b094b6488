#include "level.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "random.h"

namespace ebsynth {
namespace {

constexpr int kFewShare = 8;  // few patches: one in so many

// How many radii there are from 1, doubled, up to the largest.
int radiiWithin(int largest) {
    int radii = 0;
    for (int r = 1; r <= largest && radii < kStepsOfSet; r *= 2) ++radii;
    return radii;
}

}  // namespace

Level::Level(const Layout& layout, const Kernels& kernels, Threads& threads, const Packed& source,
             Packed target, Field field, int patch, std::uint64_t seed)
    : layout_(layout), kernels_(kernels), threads_(threads), source_(source), patch_(patch),
      seed_(seed), target_(std::move(target)), field_(std::move(field)),
      guideWeights_(layout.weights), votes_(source, target_, patch),
      distances_(field_.matches.size()), guides_(field_.matches.size()),
      active_(field_.matches.size(), 1), moved_(field_.matches.size()), change_(field_.matches.size()),
      wanted_(field_.matches.size()), works_(std::size_t(target_.height)),
      usage_(source.width, source.height, patch) {
    std::fill_n(guideWeights_.begin(), kStyleBytes, std::int16_t(0));
}

void Level::propose(Field other, const PatchTree* tree) {
    other_ = std::move(other);
    if (!other_.matches.empty()) beginWithBetter();
    if (!tree) return;
    leaves_ = tree->leaves();
    tried_.assign(field_.matches.size(), 0);
}

// Swaps the matches of both fields where the other's guides are as near or nearer.
void Level::beginWithBetter() {
    std::vector<std::uint32_t> others(guides_.size());
    threads_.runRows(target_.height, [&](int first, int end) {
        const std::size_t begin = field_.index(0, first), last = field_.index(0, end);
        Sweep sweep = guidesOf(first, end);
        kernels_.measure(sweep, active_.data());
        for (std::size_t at = begin; at < last; ++at) {
            wanted_[at] = field_.matches[at] != other_.matches[at];
        }
        sweep.matches = other_.matches.data();
        sweep.distances = others.data();
        kernels_.measure(sweep, wanted_.data());
        for (std::size_t at = begin; at < last; ++at) {
            if (wanted_[at] && others[at] <= guides_[at]) {
                std::swap(field_.matches[at], other_.matches[at]);
                guides_[at] = others[at];
            }
        }
    });
    guidesKnown_ = true;
}

void Level::refine(int rounds, const Effort& effort, double uniformity,
                   const std::function<void(int)>& begun) {
    setPenalty(uniformity);
    begin();
    const std::ptrdiff_t few = std::ptrdiff_t(active_.size()) / kFewShare;
    const int most = effort.dwells ? 2 * rounds : rounds;
    double before = objective();
    std::vector<Match> kept;
    for (int round = 0; round < rounds || (round < most && allWork_ <= few); ++round) {
        begun(std::min(round, rounds));
        kept = field_.matches;
        std::fill(moved_.begin(), moved_.end(), std::uint8_t(0));
        const int sweeps = round ? effort.lateSweeps : effort.sweeps;
        for (int sweep = 0; sweep < sweeps; ++sweep) search(round, sweep, effort);
        revote(kept);
        choose(round < 2 ? effort.visible : effort.lateVisible, effort.conspicuous);
        const double now = objective();
        if (now > before) {
            // Both bands took the same places; the votes follow from the matches.
            field_.matches = kept;
            return begin();
        }
        if (allWork_ == 0 || before - now < before * effort.enough) break;
        before = now;
    }
}

// Sum of the distances, and of the penalties for the use of the source.
double Level::objective() const {
    return double(distanceSum_) + double(usage_.squares()) * double(penalty_) / 65536.0;
}

// All patches vote and are measured and counted.
void Level::begin() {
    std::fill(active_.begin(), active_.end(), std::uint8_t(1));
    votes_.count(field_, threads_);
    threads_.runRows(target_.height, [&](int first, int end) {
        votes_.settle(target_, field_, active_, change_, first, end);
    });
    votes_.finish(target_);
    threads_.runRows(target_.height, [&](int first, int end) {
        if (!guidesKnown_) kernels_.measure(guidesOf(first, end), active_.data());
        kernels_.addStyle(sweepOf(first, end), active_.data());
    });
    guidesKnown_ = false;
    usage_.count(field_.matches, threads_);
    std::fill(works_.begin(), works_.end(), target_.width);
    allWork_ = std::ptrdiff_t(active_.size());
    distanceSum_ = std::accumulate(distances_.begin(), distances_.end(), std::int64_t(0));
}

void Level::setPenalty(double uniformity) {
    const double area = double(patch_) * patch_;
    const double best = double(target_.width) * target_.height /
                        (double(source_.width) * source_.height) * area;
    const double one = uniformity * layout_.scale / (area * best) * 65536.0;
    // Twice it, times any usage sum, which all patches at one place make largest, stays inside 63
    // bits.
    const double most = std::ldexp(1.0, 61) / (double(target_.width) * target_.height * area);
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
    sweep.guides = guides_.data();
    sweep.targetStyle = &votes_.targetStyle();
    sweep.sourceStyle = &votes_.sourceStyle();
    sweep.active = active_.data();
    sweep.moved = moved_.data();
    sweep.penalty = 2 * penalty_;  // a patch also makes its place dearer for those that overlap it
    sweep.firstRow = firstRow;
    sweep.endRow = endRow;
    return sweep;
}

// To measure what the guides add to distances.
Sweep Level::guidesOf(int firstRow, int endRow) {
    Sweep sweep = sweepOf(firstRow, endRow);
    sweep.weights = guideWeights_.data();
    sweep.distances = guides_.data();
    return sweep;
}

// One sweep: two bands of rows side by side, each with as much to search and with live use of its
// own, whoever runs first. The border between them lies elsewhere in every sweep.
void Level::search(int round, int number, const Effort& effort) {
    seed_ = mixed(seed_);
    const bool random = number < effort.randomSweeps;
    const int farRadii = random ? drawSteps(effort.farRadius) : 0;
    const int radii = random ? std::min(farRadii, radiiWithin(effort.radius)) : 0;
    const std::ptrdiff_t share = allWork_ * (number % 2 ? 9 : 11) / 20;
    int border = 0;
    for (std::ptrdiff_t before = 0; border < target_.height && before < share; ++border) {
        before += works_[std::size_t(border)];
    }
    const int rows[] = {0, border, target_.height};
    // Of what the search compares.
    const double mean = (2 * objective() - double(distanceSum_)) / double(active_.size());
    std::int64_t changes[UsageMap::kLanes];
    threads_.run(UsageMap::kLanes, [&](int task, int) {
        Sweep sweep = sweepOf(rows[task], rows[task + 1]);
        sweep.forward = number % 2 == 0;
        sweep.usage = usage_.lane(task);
        sweep.steps = steps_.data();
        sweep.radii = radii;
        sweep.farRadii = farRadii;
        sweep.farFrom = static_cast<std::int64_t>(mean * effort.farShare);
        sweep.leafFrom = static_cast<std::int64_t>(mean * (round ? 1 : effort.leafShare));
        sweep.leafTries = effort.leafTries;
        sweep.randomFrom = static_cast<std::int64_t>(mean * (round ? 0 : effort.randomShare));
        sweep.seed = seed_;
        sweep.stamp = static_cast<std::uint8_t>(std::min(number + 1, 255));
        sweep.retry = number < 2 ? std::uint8_t(0) : std::uint8_t(sweep.stamp - 1);
        if (round == 0 && number == 0 && !other_.matches.empty()) {
            sweep.proposed = other_.matches.data();
        }
        if (number == 0 && !tried_.empty()) {
            sweep.leaves = &leaves_;
            sweep.tried = tried_.data();
        }
        sweep.moves = &moves_[task];
        sweep.moves->clear();
        kernels_.sweep(sweep);
        changes[task] = sweep.useChange;
    });
    usage_.join(moves_, changes, field_.matches, threads_);
}

// Sets of random steps, of every radius from 1, doubled, up to the larger side of the source; how many
// radii.
int Level::drawSteps(int largest) {
    const int radii = radiiWithin(std::min(largest, std::max(source_.width, source_.height)));
    steps_.resize(std::size_t(kStepSets) * kStepsOfSet);
    for (std::size_t set = 0; set < steps_.size(); set += kStepsOfSet) {
        for (int i = 0; i < radii; ++i) {
            const int r = 1 << i;
            const std::uint64_t bits = mixed(seed_ + set + std::size_t(i));
            const int x = below(static_cast<std::uint32_t>(bits), 2 * r + 1) - r;
            const int y = below(static_cast<std::uint32_t>(bits >> 32), 2 * r + 1) - r;
            steps_[set + std::size_t(i)] = {static_cast<std::int16_t>(x), static_cast<std::int16_t>(y)};
        }
    }
    return radii;
}

void Level::revote(const std::vector<Match>& before) {
    votes_.follow(field_, before, moved_, threads_);
    threads_.runRows(target_.height, [&](int first, int end) {
        dilateRows(moved_, target_.width, patch_ / 2, 1, wanted_, first, end);
        votes_.settle(target_, field_, wanted_, change_, first, end);
    });
    votes_.finish(target_);
}

// Measures the patches that changed, and finds those that the next round searches.
void Level::choose(std::uint8_t visible, int conspicuous) {
    const int width = target_.width, reach = patch_ / 2;
    std::vector<std::uint64_t> sums(std::size_t(target_.height));
    threads_.runRows(target_.height, [&](int first, int end) {
        dilateRows(change_, width, reach, 1, wanted_, first, end);
        kernels_.addStyle(sweepOf(first, end), wanted_.data());
        dilateRows(change_, width, reach, visible, active_, first, end);
        for (int y = first; y < end; ++y) {
            const std::uint32_t* row = &distances_[std::size_t(y) * std::size_t(width)];
            sums[std::size_t(y)] = std::accumulate(row, row + width, std::uint64_t(0));
        }
    });
    const std::uint64_t sum = std::accumulate(sums.begin(), sums.end(), std::uint64_t(0));
    distanceSum_ = std::int64_t(sum);
    const std::int32_t limit = static_cast<std::int32_t>(std::min<std::uint64_t>(
        sum * std::uint64_t(conspicuous) / distances_.size(), 0x7FFFFFFF));
    threads_.runRows(target_.height, [&](int first, int end) {
        for (int y = first; y < end; ++y) {
            const std::uint32_t* row = &distances_[std::size_t(y) * std::size_t(width)];
            std::uint8_t* active = &active_[std::size_t(y) * std::size_t(width)];
            for (int x = 0; x < width; ++x) active[x] |= std::int32_t(row[x]) > limit;
            works_[std::size_t(y)] = std::accumulate(active, active + width, std::ptrdiff_t(0));
        }
    });
    allWork_ = std::accumulate(works_.begin(), works_.end(), std::ptrdiff_t(0));
}

}  // namespace ebsynth
