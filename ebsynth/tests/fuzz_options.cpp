// Fuzz target: any words are options in their ranges or a UsageError, nothing else (README.md here).
// Words are separated by line ends.
#include <cstdlib>

#include "../src/errors.h"
#include "../src/options.h"

namespace {

bool inRange(const ebsynth::Options& options) {
    const ebsynth::Parameters& p = options.parameters;
    bool good = p.patch % 2 == 1 && p.patch >= 3 && p.patch <= 31 && p.levels >= 0 &&
                p.rounds >= 0 && p.sweeps >= 0 && p.uniformity >= 0 && options.threads >= 0;
    good = good && (options.styleWeight == -1 || ebsynth::usableWeight(options.styleWeight));
    for (const ebsynth::GuideFiles& guide : options.guides) {
        good = good && (guide.weight == -1 || ebsynth::usableWeight(guide.weight));
        good = good && !guide.source.empty() && !guide.target.empty();
    }
    const bool complete = !options.style.empty() && !options.guides.empty();
    return good && (options.action != ebsynth::Action::synthesize || complete);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::vector<std::string> words(1);
    for (std::size_t i = 0; i < size; ++i) {
        if (data[i] == '\n') {
            words.emplace_back();
        } else {
            words.back() += static_cast<char>(data[i]);
        }
    }
    try {
        if (!inRange(ebsynth::parseOptions(words))) std::abort();
    } catch (const ebsynth::UsageError&) {
    }
    return 0;
}
