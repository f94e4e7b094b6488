// What the program does once its options are known.
#pragma once

#include "options.h"

namespace ebsynth {

constexpr const char* kVersion = "1.0.0";

// Does what the options say; the exit code. Throws what errors.h names.
int run(const Options& options);

// Frames by pipe: stdin to stdout (../README.md).
int runSequence(const Options& options);

// Paints a small scene whose answer is known, with every instruction set; says what it finds.
int runSelfTest();

}  // namespace ebsynth
