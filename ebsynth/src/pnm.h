// PGM and PPM with binary pixels (P5, P6), of any largest value up to 65535.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "image.h"

namespace ebsynth {

// Whether a file begins like one.
bool isPnm(const std::vector<std::uint8_t>& bytes);

// The picture as RGBA; `name` is what messages call it. Throws InputError.
Image decodePnm(const std::vector<std::uint8_t>& bytes, const std::string& name);

}  // namespace ebsynth
