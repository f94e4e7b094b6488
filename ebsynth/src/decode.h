// Pictures from bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "image.h"

namespace ebsynth {

// PNG, JPEG, BMP, TGA or PNM, known by its content, as RGBA; `name` is what messages call it.
// Throws InputError where it is none of these, too large, or not whole.
Image decodeImage(const std::vector<std::uint8_t>& bytes, const std::string& name);

}  // namespace ebsynth
