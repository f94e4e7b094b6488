// What may go wrong, each kind with its exit code.
#pragma once

#include <stdexcept>
#include <string>

namespace ebsynth {

constexpr int kExitUsage = 2, kExitInput = 3, kExitInternal = 4;

// The command line is wrong.
struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// An input cannot be used, or an output cannot be written.
struct InputError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace ebsynth
