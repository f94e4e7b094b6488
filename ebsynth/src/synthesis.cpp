#include "synthesis.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "errors.h"
#include "level.h"
#include "random.h"
#include "tree.h"

namespace ebsynth {
namespace {

// A field to start from is good already, and the tree finds what lies far: random search is near,
// where a patch is worse than some, and far only where it is much worse than most.
Effort effortOf(const Parameters& parameters, bool started) {
    const int all = parameters.sweeps, third = (all + 2) / 3, any = kLargestSide;
    if (parameters.quality == Quality::best) {
        const int sweeps = (2 * all + 2) / 3;
        return {sweeps, sweeps, third, 0, any, 0, any, 1, kMostOfLeaf, 1, 1, 4, 0, true};
    }
    if (started) return {(all + 1) / 2, third, 1, 1.3, 4, 2, 128, 1.5, 4, 3, 2, 8, 0.001, false};
    return {all, all, (all + 1) / 2, 0, any, 0, any, 1, kMostOfLeaf, 3, 3, 4, 0, false};
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

// A field from elsewhere, its patches inside the source.
Field inside(Field field, int patch) {
    const Bounds bounds(field.sourceWidth, field.sourceHeight, patch);
    for (Match& match : field.matches) match = bounds.nearest(match.x, match.y);
    return field;
}

Result resultOf(Level level, const Layout& layout, Threads& threads) {
    Result result;
    const Packed& target = level.target();
    const std::size_t channels = std::size_t(layout.channels[0]), row = std::size_t(target.width);
    const std::size_t pixels = level.distances().size();
    result.output = {target.width, target.height, layout.channels[0], {}};
    result.output.pixels.resize(pixels * channels);
    result.errors.resize(pixels);
    threads.runRows(target.height, [&](int first, int end) {
        for (int y = first; y < end; ++y) {
            std::size_t at = std::size_t(y) * row;
            for (int x = 0; x < target.width; ++x, ++at) {
                std::copy_n(target.at(x, y), channels, &result.output.pixels[at * channels]);
                result.errors[at] = static_cast<float>(level.distances()[at] / layout.scale);
            }
        }
    });
    result.field = level.takeField();
    return result;
}

}  // namespace

struct Synthesizer::State {
    Parameters parameters;
    Layout layout;
    const Kernels* kernels;
    Threads* threads;
    Packed source;                    // full resolution
    std::unique_ptr<PatchTree> tree;  // of it, made when wanted
    std::vector<Packed> coarse;       // the others, coarsest first, made when wanted
};

namespace {

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
                s_.coarse.push_back(resampled(s_.source, sourceWidths_[i], sourceHeights_[i],
                                             *s_.threads));
            }
        }
        for (std::size_t i = 0; i < widths_.size(); ++i) {
            pixels_ += double(widths_[i]) * heights_[i];
        }
    }

    Result paint(const Field* start, const Field* other) {
        Field field;
        for (std::size_t i = 0; i + 1 < widths_.size(); ++i) {
            Packed target = resampled(full_, widths_[i], heights_[i], *s_.threads);
            field = refined(i, begun(i, field, nullptr), std::move(target)).takeField();
        }
        started_ = start != nullptr;
        const std::size_t last = widths_.size() - 1;
        Field first = begun(last, field, start);
        if (other) other_ = inside(*other, s_.parameters.patch);
        Level level = refined(last, std::move(first), std::move(full_));
        if (!s_.parameters.extraPass) return resultOf(std::move(level), s_.layout, *s_.threads);
        return resultOf(withSmallPatches(level.takeTarget(), level.takeField()), s_.layout,
                        *s_.threads);
    }

 private:
    const Packed& source(std::size_t i) const {
        return i + 1 == widths_.size() ? s_.source : s_.coarse[i];
    }
    std::uint64_t seed(std::size_t i) const { return mixed(s_.parameters.seed * 1000003u + i); }

    // The field a resolution begins with.
    Field begun(std::size_t i, const Field& coarser, const Field* start) const {
        const int patch = s_.parameters.patch;
        if (start) return inside(*start, patch);
        if (i == 0) return randomField(widths_[0], heights_[0], source(0), patch, seed(0));
        return enlarged(coarser, widths_[i], heights_[i], source(i), patch);
    }

    Level refined(std::size_t i, Field field, Packed target) {
        Level level(s_.layout, *s_.kernels, *s_.threads, source(i),
                    std::move(target), std::move(field), s_.parameters.patch, seed(i));
        if (i + 1 == widths_.size()) {
            if (!s_.tree) {
                s_.tree = std::make_unique<PatchTree>(s_.source, s_.layout, s_.parameters.patch,
                                                      *s_.kernels, *s_.threads);
            }
            level.propose(std::move(other_), s_.tree.get());
        }
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
        Level level(s_.layout, *s_.kernels, *s_.threads, s_.source, std::move(target),
                    inside(std::move(field), kSmall), kSmall, mixed(seed(widths_.size())));
        level.refine(s_.parameters.rounds, effortOf(s_.parameters, false), 0, [](int) {});
        return level;
    }

    Synthesizer::State& s_;
    Packed full_;
    const Progress& progress_;
    const std::vector<int> sourceWidths_, sourceHeights_, widths_, heights_;
    double pixels_ = 0, done_ = 0;
    bool started_ = false;
    Field other_;  // to begin with too; empty: none
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

// Sums of how often a source pixel is used stay inside 31 bits, even if all patches use the same.
void checkUses(int width, int height, int patch) {
    if (std::int64_t(width) * height * patch * patch <= 2147483647) return;
    throw InputError("patches of " + std::to_string(patch) + " are too large for a target of " +
                     std::to_string(width) + "x" + std::to_string(height) +
                     "; give a smaller -patchsize");
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

Field fieldAlong(int width, int height, int styleWidth, int styleHeight, const float* track) {
    Field field(width, height, styleWidth, styleHeight);
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x, track += 2) {
            field.at(x, y) = {static_cast<std::uint16_t>(
                                  rounded(static_cast<float>(x) + track[0], styleWidth - 1)),
                              static_cast<std::uint16_t>(
                                  rounded(static_cast<float>(y) + track[1], styleHeight - 1))};
        }
    }
    return field;
}

Synthesizer::Synthesizer(const Image& style, const std::vector<Image>& sources,
                         const std::vector<double>& weights, const Parameters& parameters,
                         const Kernels& kernels, Threads& threads)
    : state_(new State{parameters, {}, &kernels, &threads, {}, {}, {}}) {
    std::vector<int> channels{style.channels};
    std::vector<const Image*> images{&style};
    for (std::size_t i = 0; i < sources.size(); ++i) {
        checkSize(sources[i], style.width, style.height, "source guide", i);
        channels.push_back(sources[i].channels);
        images.push_back(&sources[i]);
    }
    state_->layout = makeLayout(channels, weights, parameters.patch);
    state_->source = packed(images, state_->layout, parameters.patch - 1, true, threads);
}

Synthesizer::~Synthesizer() = default;

Result Synthesizer::paint(const std::vector<Image>& targets, const Field* start,
                          const Field* other, const Progress& progress) {
    State& s = *state_;
    const int width = targets.front().width, height = targets.front().height;
    std::vector<const Image*> images;
    for (std::size_t i = 0; i < targets.size(); ++i) {
        checkSize(targets[i], width, height, "target guide", i);
        images.push_back(&targets[i]);
    }
    checkUses(width, height, s.parameters.patch);
    Packed target = packed(images, s.layout, s.parameters.patch - 1, false, *s.threads);
    const int shorter = std::min({width, height, s.source.width, s.source.height});
    const int fit = levelsThatFit(shorter, s.parameters.patch);
    const int wanted = s.parameters.levels > 0 ? std::min(s.parameters.levels, fit) : fit;
    Painter painter(s, std::move(target), start ? 1 : wanted, progress);
    Result result = painter.paint(start, other);
    if (progress) progress(1);
    return result;
}

}  // namespace ebsynth
