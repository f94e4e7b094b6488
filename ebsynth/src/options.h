// The command line (../README.md), parsed into values and checked.
#pragma once

#include <string>
#include <vector>

#include "synthesis.h"

namespace ebsynth {

enum class Action { synthesize, sequence, help, version, selfTest };

struct GuideFiles {
    std::string source, target;
    double weight = -1;  // below 0: not given
};

struct Options {
    Action action = Action::synthesize;
    std::string style;
    double styleWeight = -1;  // below 0: not given
    std::vector<GuideFiles> guides;
    std::string output = "output.png", errorMap, field, start;
    Parameters parameters;
    int threads = 0;
    bool progress = false;
};

// Weights that are not 0 lie between these: distances stay far inside the range of a float.
constexpr double kLeastWeight = 1e-6, kLargestWeight = 1e6;

inline bool usableWeight(double weight) {
    return weight == 0 || (weight >= kLeastWeight && weight <= kLargestWeight);
}

// Throws UsageError that names the option, the value and what to do.
Options parseOptions(const std::vector<std::string>& words);

// What -help prints.
extern const char* const kHelp;

}  // namespace ebsynth
