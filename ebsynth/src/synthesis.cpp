#include "synthesis.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "errors.h"
#include "random.h"
#include "usage.h"
#include "vote.h"

namespace ebsynth {
namespace {

constexpr int kRowsOfBand = 64;  // bands of rows are searched side by side
constexpr int kMostBands = 8;

// Which patches are searched again after a vote.
struct Effort {
    std::uint8_t visible;  // those in which a channel changed by this
    int conspicuous;       // and those whose distance is this many times the mean: lucky finds that
                           // lower the objective are nearly all among them
    int sweeps;            // of search in a round
};

// A field to start from is good already: half the sweeps cost 0.3 % of the objective.
Effort effortOf(const Parameters& parameters, bool started) {
    const int sweeps = parameters.sweeps;
    if (parameters.quality == Quality::best) return {1, 4, sweeps};
    return {3, 4, started ? (sweeps + 1) / 2 : sweeps};
}

// The side of every resolution, coarsest first.
std::vector<int> sidesOf(int side, int levels) {
    std::vector<int> sides;
    for (int level = 0; level < levels; ++level) sides.push_back(side >> (levels - 1 - level));
    return sides;
}

Field randomField(int width, int height, const Packed& source, int patch, std::uint64_t seed) {
    Field field(width, height, source.width, source.height);
    const Bounds bounds(source.width, source.height, patch);
    std::uint64_t place = 0;
    for (Match& match : field.matches) {
        const std::uint64_t bits = mixed(seed + ++place);
        const int x = below(static_cast<std::uint32_t>(bits), bounds.right - bounds.left + 1);
        const int y = below(static_cast<std::uint32_t>(bits >> 32), bounds.bottom - bounds.top + 1);
        match = bounds.nearest(bounds.left + x, bounds.top + y);
    }
    return field;
}

Field enlarged(const Field& small, int width, int height, const Packed& source, int patch) {
    Field field(width, height, source.width, source.height);
    const Bounds bounds(source.width, source.height, patch);
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            const Match match = small.at(std::min(x / 2, small.width - 1),
                                         std::min(y / 2, small.height - 1));
            field.at(x, y) = bounds.nearest(2 * match.x + x % 2, 2 * match.y + y % 2);
        }
    }
    return field;
}

}  // namespace

struct Synthesizer::State {
    Parameters parameters;
    Layout layout;
    const Kernels* kernels;
    Threads* threads;
    Packed source;                // full resolution
    std::vector<Packed> coarse;   // the others, coarsest first, made when wanted
};

namespace {

// One resolution at work.
class Level {
 public:
    Level(const Layout& layout, const Kernels& kernels, Threads& threads, const Packed& source,
          Packed target, Field field, int patch, std::uint64_t seed)
        : layout_(layout), kernels_(kernels), threads_(threads),
          source_(source), patch_(patch), seed_(seed), target_(std::move(target)),
          field_(std::move(field)), distances_(field_.matches.size()),
          active_(field_.matches.size(), 1), moved_(field_.matches.size()),
          change_(field_.matches.size()),
          bands_(std::clamp(target_.height / kRowsOfBand, 1, kMostBands)),
          usage_(source.width, source.height, patch, bands_ > 1 ? threads.count() : 0) {}

    // Rounds of search and vote; `begun` hears of each round.
    template <class Begun>
    void refine(int rounds, const Effort& effort, double uniformity, const Begun& begun) {
        setPenalty(uniformity);
        vote(target_, source_, field_, patch_, active_, change_, threads_);
        measure(active_);
        usage_.count(field_.matches);
        for (int round = 0; round < rounds; ++round) {
            begun(round);
            std::fill(moved_.begin(), moved_.end(), std::uint8_t(0));
            for (int sweep = 0; sweep < effort.sweeps; ++sweep) search(sweep);
            revote();
            choose(effort);
            if (std::find(active_.begin(), active_.end(), 1) == active_.end()) break;
        }
    }

    Field takeField() { return std::move(field_); }

    Result result(int styleChannels) {
        Result result;
        result.output = {target_.width, target_.height, styleChannels, {}};
        result.output.pixels.reserve(field_.matches.size() * std::size_t(styleChannels));
        for (int y = 0; y < target_.height; ++y) {
            for (int x = 0; x < target_.width; ++x) {
                const std::uint8_t* pixel = target_.at(x, y);
                result.output.pixels.insert(result.output.pixels.end(), pixel,
                                            pixel + styleChannels);
            }
        }
        result.errors.reserve(distances_.size());
        for (std::uint32_t distance : distances_) {
            result.errors.push_back(static_cast<float>(distance / layout_.scale));
        }
        result.field = std::move(field_);
        return result;
    }

    Packed takeTarget() { return std::move(target_); }

 private:
    void setPenalty(double uniformity) {
        const double area = double(patch_) * patch_;
        const double best = double(target_.width) * target_.height /
                            (double(source_.width) * source_.height) * area;
        const double one = uniformity * layout_.scale / (area * best) * 65536.0;
        penalty_ = static_cast<std::int64_t>(std::llround(std::min(one, 2147483647.0)));
    }

    Sweep sweepOf(int band) const {
        Sweep sweep;
        sweep.target = &target_;
        sweep.source = &source_;
        sweep.weights = layout_.weights.data();
        sweep.patch = patch_;
        sweep.bounds = Bounds(source_.width, source_.height, patch_);
        sweep.penalty = penalty_;
        sweep.firstRow = static_cast<int>(std::int64_t(target_.height) * band / bands_);
        sweep.endRow = static_cast<int>(std::int64_t(target_.height) * (band + 1) / bands_);
        return sweep;
    }

    Sweep writing(int band) {
        Sweep sweep = sweepOf(band);
        sweep.matches = field_.matches.data();
        sweep.distances = distances_.data();
        sweep.active = active_.data();
        sweep.moved = moved_.data();
        return sweep;
    }

    // One sweep over all bands: every second one, then the others, so that no two neighbours are
    // at work together. A band sees its neighbours as they are when it begins and the source's use
    // of the others as it was then, whoever runs first: the number of threads changes nothing.
    void search(int number) {
        seed_ = mixed(seed_);
        const bool forward = number % 2 == 0;
        searchEvery(forward, 0);
        if (bands_ > 1) searchEvery(forward, 1);
    }

    void searchEvery(bool forward, int first) {
        const int tasks = (bands_ - first + 1) / 2;
        std::vector<std::vector<Move>> moves(static_cast<std::size_t>(tasks));
        threads_.run(tasks, [&](int task, int thread) {
            Sweep sweep = writing(first + 2 * task);
            sweep.forward = forward;
            sweep.usage = tasks > 1 ? usage_.copyFor(thread) : usage_.shared();
            sweep.largestRadius = std::max(source_.width, source_.height);
            sweep.seed = seed_;
            if (tasks > 1) sweep.moves = &moves[std::size_t(task)];
            kernels_.sweep(sweep);
        });
        if (tasks > 1) usage_.follow(moves, field_.matches);
    }

    void revote() {
        Mask wanted(moved_.size());
        dilate(moved_, target_.width, patch_ / 2, 1, wanted);
        vote(target_, source_, field_, patch_, wanted, change_, threads_);
        dilate(change_, target_.width, patch_ / 2, 1, wanted);
        measure(wanted);
    }

    // The patches that the next round searches.
    void choose(const Effort& effort) {
        dilate(change_, target_.width, patch_ / 2, effort.visible, active_);
        std::uint64_t sum = 0;
        for (std::uint32_t distance : distances_) sum += distance;
        const std::uint64_t limit = sum * std::uint64_t(effort.conspicuous) / distances_.size();
        for (std::size_t i = 0; i < active_.size(); ++i) active_[i] |= distances_[i] > limit;
    }

    void measure(const Mask& wanted) {
        threads_.run(bands_, [&](int band, int) {
            kernels_.measure(writing(band), wanted.data());
        });
    }

    const Layout& layout_;
    const Kernels& kernels_;
    Threads& threads_;
    const Packed& source_;
    const int patch_;
    std::uint64_t seed_;
    Packed target_;
    Field field_;
    std::vector<std::uint32_t> distances_;
    Mask active_, moved_, change_;
    const int bands_;
    UsageMap usage_;
    std::int64_t penalty_ = 0;
};

// Works through the resolutions of one frame.
class Painter {
 public:
    Painter(Synthesizer::State& state, Packed target, int levels, const Progress& progress)
        : s_(state), full_(std::move(target)), progress_(progress),
          sourceWidths_(sidesOf(state.source.width, levels)),
          sourceHeights_(sidesOf(state.source.height, levels)),
          widths_(sidesOf(full_.width, levels)), heights_(sidesOf(full_.height, levels)) {
        if (s_.coarse.size() + 1 < widths_.size()) {
            s_.coarse.clear();
            for (std::size_t i = 0; i + 1 < widths_.size(); ++i) {
                s_.coarse.push_back(resampled(s_.source, sourceWidths_[i], sourceHeights_[i]));
            }
        }
        for (std::size_t i = 0; i < widths_.size(); ++i) {
            pixels_ += double(widths_[i]) * heights_[i];
        }
    }

    Result paint(const Field* start) {
        Field field;
        for (std::size_t i = 0; i + 1 < widths_.size(); ++i) {
            field = refined(i, begun(i, field, nullptr), resampled(full_, widths_[i], heights_[i]))
                        .takeField();
        }
        started_ = start != nullptr;
        const std::size_t last = widths_.size() - 1;
        const int channels = s_.layout.channels[0];
        Field first = begun(last, field, start);
        Level level = refined(last, std::move(first), std::move(full_));
        if (!s_.parameters.extraPass) return level.result(channels);
        return withSmallPatches(level.takeTarget(), level.takeField()).result(channels);
    }

 private:
    const Packed& source(std::size_t i) const {
        return i + 1 == widths_.size() ? s_.source : s_.coarse[i];
    }
    std::uint64_t seed(std::size_t i) const { return mixed(s_.parameters.seed * 1000003u + i); }

    // The field a resolution begins with.
    Field begun(std::size_t i, const Field& coarser, const Field* start) const {
        if (start) return *start;
        const int patch = s_.parameters.patch;
        if (i == 0) return randomField(widths_[0], heights_[0], source(0), patch, seed(0));
        return enlarged(coarser, widths_[i], heights_[i], source(i), patch);
    }

    Level refined(std::size_t i, Field field, Packed target) {
        Level level(s_.layout, *s_.kernels, *s_.threads, source(i),
                    std::move(target), std::move(field), s_.parameters.patch, seed(i));
        const double share = double(widths_[i]) * heights_[i] / pixels_;
        const int rounds = s_.parameters.rounds;
        level.refine(rounds, effortOf(s_.parameters, started_), s_.parameters.uniformity,
                     [&](int round) {
                         if (progress_) progress_(done_ + share * round / std::max(1, rounds));
                     });
        done_ += share;
        return level;
    }

    Level withSmallPatches(Packed target, Field field) {
        constexpr int kSmall = 3;
        for (Match& match : field.matches) {
            match = Bounds(s_.source.width, s_.source.height, kSmall).nearest(match.x, match.y);
        }
        Level level(s_.layout, *s_.kernels, *s_.threads, s_.source,
                    std::move(target), std::move(field), kSmall, mixed(seed(widths_.size())));
        level.refine(s_.parameters.rounds, effortOf(s_.parameters, false), 0, [](int) {});
        return level;
    }

    Synthesizer::State& s_;
    Packed full_;
    const Progress& progress_;
    const std::vector<int> sourceWidths_, sourceHeights_, widths_, heights_;
    double pixels_ = 0, done_ = 0;
    bool started_ = false;
};

// A position in 0 .. last; no number counts as 0.
int rounded(float position, int last) {
    if (!(position > 0)) return 0;
    return position < static_cast<float>(last) ? static_cast<int>(position + 0.5f) : last;
}

void checkSize(const Image& image, int width, int height, const char* what, std::size_t number) {
    if (image.width == width && image.height == height) return;
    throw InputError(std::string(what) + " " + std::to_string(number + 1) + " is " +
                     std::to_string(image.width) + "x" + std::to_string(image.height) + ", not " +
                     std::to_string(width) + "x" + std::to_string(height) +
                     "; give images of one size");
}

Packed packed(const std::vector<const Image*>& images, const Layout& layout, int pad, int first) {
    const Image& any = *images.front();
    Packed result(any.width, any.height, pad, layout.pixelBytes);
    for (const Image* image : images) {
        packInto(result, *image, first);
        first = (first == 0 ? kStyleBytes : first + image->channels);
    }
    result.repeatEdges();
    return result;
}

}  // namespace

int levelsThatFit(int shorterSide, int patch) {
    int levels = 1;
    while ((shorterSide >> levels) >= 2 * patch + 1) ++levels;
    return levels;
}

Field movedAlong(const Field& before, const float* flow) {
    Field field(before.width, before.height, before.sourceWidth, before.sourceHeight);
    for (int y = 0; y < field.height; ++y) {
        for (int x = 0; x < field.width; ++x, flow += 2) {
            field.at(x, y) = before.at(rounded(static_cast<float>(x) + flow[0], field.width - 1),
                                       rounded(static_cast<float>(y) + flow[1], field.height - 1));
        }
    }
    return field;
}

Synthesizer::Synthesizer(const Image& style, const std::vector<Image>& sources,
                         const std::vector<double>& weights, const Parameters& parameters,
                         const Kernels& kernels, Threads& threads)
    : state_(new State{parameters, {}, &kernels, &threads, {}, {}}) {
    std::vector<int> channels{style.channels};
    std::vector<const Image*> images{&style};
    for (std::size_t i = 0; i < sources.size(); ++i) {
        checkSize(sources[i], style.width, style.height, "source guide", i);
        channels.push_back(sources[i].channels);
        images.push_back(&sources[i]);
    }
    state_->layout = makeLayout(channels, weights, parameters.patch);
    state_->source = packed(images, state_->layout, parameters.patch - 1, 0);
}

Synthesizer::~Synthesizer() = default;

Result Synthesizer::paint(const std::vector<Image>& targets, const Field* start,
                          const Progress& progress) {
    State& s = *state_;
    const int width = targets.front().width, height = targets.front().height;
    std::vector<const Image*> images;
    for (std::size_t i = 0; i < targets.size(); ++i) {
        checkSize(targets[i], width, height, "target guide", i);
        images.push_back(&targets[i]);
    }
    Packed target = packed(images, s.layout, s.parameters.patch - 1, kStyleBytes);
    const int shorter = std::min({width, height, s.source.width, s.source.height});
    const int fit = levelsThatFit(shorter, s.parameters.patch);
    const int wanted = s.parameters.levels > 0 ? std::min(s.parameters.levels, fit) : fit;
    Painter painter(s, std::move(target), start ? 1 : wanted, progress);
    Result result = painter.paint(start);
    if (progress) progress(1);
    return result;
}

}  // namespace ebsynth
