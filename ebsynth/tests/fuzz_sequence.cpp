// Fuzz target: any bytes on stdin are answered or an InputError, nothing else (README.md here).
#include <cstdio>
#include <cstdlib>

#include "../src/errors.h"
#include "../src/run.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    ebsynth::Options options;
    options.action = ebsynth::Action::sequence;
    options.threads = 1;
    options.parameters.rounds = options.parameters.sweeps = 1;
    std::FILE* const real = stdin;
    stdin = fmemopen(const_cast<std::uint8_t*>(data), size, "rb");
    try {
        if (ebsynth::runSequence(options) != 0) std::abort();
    } catch (const ebsynth::InputError&) {
    }
    std::fclose(stdin);
    stdin = real;
    return 0;
}
