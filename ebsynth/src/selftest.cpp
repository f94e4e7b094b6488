// A small scene whose answer is known, painted with every instruction set of this machine.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "errors.h"
#include "random.h"
#include "run.h"

namespace ebsynth {
namespace {

constexpr int kSide = 48, kShift = 5;

// Random blocks of two by two pixels, moved by a shift.
Image scene(int channels, int shift, std::uint64_t seed) {
    Image image{kSide, kSide, channels, {}};
    for (int y = 0; y < kSide; ++y) {
        for (int x = 0; x < kSide; ++x) {
            const int block = (x + shift) / 2 * 4096 + y / 2;
            const std::uint64_t bits = mixed(seed + std::uint64_t(block));
            for (int c = 0; c < channels; ++c) {
                image.pixels.push_back(static_cast<std::uint8_t>(bits >> (8 * c)));
            }
        }
    }
    return image;
}

// Mean difference of a painted target from the style that was moved like its guide.
double missed(const Result& result, const Image& wanted) {
    double sum = 0;
    int count = 0;
    for (int y = 4; y < kSide - 4; ++y) {
        for (int x = 4; x < kSide - 4 - kShift; ++x) {
            for (int c = 0; c < 3; ++c, ++count) {
                const std::size_t at = std::size_t((y * kSide + x) * 3 + c);
                sum += std::abs(int(result.output.pixels[at]) - int(wanted.pixels[at]));
            }
        }
    }
    return sum / count;
}

}  // namespace

int runSelfTest() {
    const Image style = scene(3, 0, 7), wanted = scene(3, kShift, 7);
    const std::vector<Image> sources{scene(3, 0, 99)}, targets{scene(3, kShift, 99)};
    std::vector<std::uint8_t> first;
    for (const char* name : {"avx2", "neon", "sse2", "scalar"}) {
        const Kernels* chosen = kernels(name);
        if (!chosen) continue;
        for (int count : {1, 2}) {
            Threads threads(count);
            Synthesizer synthesizer(style, sources, {1.0, 4.0}, Parameters(), *chosen, threads);
            const Result result = synthesizer.paint(targets, nullptr);
            if (first.empty()) first = result.output.pixels;
            const double miss = missed(result, wanted);
            if (miss > 1.0 || result.output.pixels != first) {
                std::fprintf(stderr, "ebsynth: self-test failed with %s and %d threads (%.2f)\n",
                             name, count, miss);
                return kExitInternal;
            }
        }
        std::printf("%s: ok\n", name);
    }
    return 0;
}

}  // namespace ebsynth
