// Fuzz target: any bytes are a picture or an InputError, nothing else (README.md here).
#include <cstdlib>

#include "../src/decode.h"
#include "../src/errors.h"
#include "../src/files.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;  // refused before decoding
    try {
        const ebsynth::Image image = ebsynth::decodeImage({data, data + size}, "input");
        const std::size_t pixels = std::size_t(image.width) * std::size_t(image.height);
        if (pixels == 0 || image.pixels.size() != pixels * 4) std::abort();
        const int channels = ebsynth::neededChannels(image);
        if (ebsynth::withChannels(image, channels).pixels.size() != pixels * std::size_t(channels)) {
            std::abort();
        }
    } catch (const ebsynth::InputError&) {
    }
    return 0;
}
