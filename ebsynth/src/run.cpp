#include "run.h"

#include <cstdio>

#include "errors.h"
#include "files.h"

namespace ebsynth {
namespace {

// Style and guides as the synthesizer wants them.
struct Inputs {
    Image style;
    std::vector<Image> sources, targets;
    std::vector<double> weights;
};

Inputs readInputs(const Options& options, Threads& threads) {
    const std::size_t guides = options.guides.size();
    Inputs inputs;
    inputs.sources.resize(guides);
    inputs.targets.resize(guides);
    threads.run(static_cast<int>(guides) + 1, [&](int task, int) {
        if (task == 0) {
            const Image style = readImage(options.style);
            inputs.style = withChannels(style, neededChannels(style));
            return;
        }
        const std::size_t guide = static_cast<std::size_t>(task) - 1;
        const GuideFiles& files = options.guides[guide];
        const Image source = readImage(files.source), target = readImage(files.target);
        const int channels = std::max(neededChannels(source), neededChannels(target));
        inputs.sources[guide] = withChannels(source, channels);
        inputs.targets[guide] = withChannels(target, channels);
    });
    inputs.weights.push_back(options.styleWeight < 0 ? 1.0 : options.styleWeight);
    for (const GuideFiles& files : options.guides) {
        const double standard = 1.0 / static_cast<double>(guides);
        inputs.weights.push_back(files.weight < 0 ? standard : files.weight);
    }
    return inputs;
}

void report(double share) {
    std::fprintf(stderr, "progress %.0f\n", share * 100);
    std::fflush(stderr);
}

int synthesize(const Options& options) {
    for (const std::string& path : {options.output, options.errorMap, options.field}) {
        if (!path.empty()) checkFolderOf(path);
    }
    Threads threads(options.threads);
    Inputs inputs = readInputs(options, threads);
    Synthesizer synthesizer(inputs.style, inputs.sources, inputs.weights, options.parameters,
                            *kernels(), threads);
    const int sourceWidth = inputs.style.width, sourceHeight = inputs.style.height;
    inputs.style = {};
    inputs.sources.clear();  // packed by now
    Field field;
    const Field* start = options.start.empty() ? nullptr : &field;
    if (start) {
        field = readField(options.start, inputs.targets[0].width, inputs.targets[0].height,
                          sourceWidth, sourceHeight);
    }
    const Result result =
        synthesizer.paint(inputs.targets, start, nullptr, options.progress ? report : Progress());
    if (!options.errorMap.empty()) writeErrors(options.errorMap, result.errors);
    if (!options.field.empty()) writeField(options.field, result.field);
    writePng(options.output, result.output);
    return 0;
}

}  // namespace

int run(const Options& options) {
    switch (options.action) {
        case Action::help: std::fputs(kHelp, stdout); return 0;
        case Action::version: std::printf("ebsynth %s (%s)\n", kVersion, kernels()->name); return 0;
        case Action::selfTest: return runSelfTest();
        case Action::sequence: return runSequence(options);
        case Action::synthesize: break;
    }
    return synthesize(options);
}

}  // namespace ebsynth
