// Guided patch synthesis: paints a target in the strokes of a style (see ../README.md for sources).
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "field.h"
#include "image.h"
#include "kernels.h"
#include "threads.h"

namespace ebsynth {

enum class Quality { best, balanced };

struct Parameters {
    double uniformity = 3500;
    int patch = 5;
    int levels = 0;  // 0: as many as fit
    int rounds = 6;
    int sweeps = 4;
    bool extraPass = false;
    Quality quality = Quality::balanced;
    std::uint64_t seed = 0;
};

// A frame painted.
struct Result {
    Image output;
    std::vector<float> errors;  // distance of every pixel's patch, row by row
    Field field;
};

// Hears how much is done, 0 to 1.
using Progress = std::function<void(double)>;

class Synthesizer {
 public:
    // Style and source guides, all of one size; `weights` of the style, then of every guide.
    // Throws InputError where sizes disagree.
    Synthesizer(const Image& style, const std::vector<Image>& sources,
                const std::vector<double>& weights, const Parameters& parameters,
                const Kernels& kernels, Threads& threads);
    ~Synthesizer();

    // Paints the frame of these target guides. `start`: a field to begin with at full
    // resolution, of this target's size; null: begin anew from the coarsest resolution.
    // `other`: a second one; every pixel begins with the match whose guides fit better, and tries
    // both. Null: none.
    Result paint(const std::vector<Image>& targets, const Field* start,
                 const Field* other = nullptr, const Progress& progress = {});

    struct State;

 private:
    std::unique_ptr<State> state_;
};

// The field of the frame before, moved along a flow of x, y pairs to the frame before.
Field movedAlong(const Field& before, const float* flow);

// The field of a target whose pixels lie in the style where a track of x, y pairs leads.
Field fieldAlong(int width, int height, int styleWidth, int styleHeight, const float* track);

// Resolutions that fit a shorter side: the coarsest still has twice the patch and one more.
int levelsThatFit(int shorterSide, int patch);

}  // namespace ebsynth
