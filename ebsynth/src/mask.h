// Marks of pixels: one byte a pixel, 0 where there is none.
#pragma once

#include <cstdint>
#include <cstring>

namespace ebsynth {

// The first marked one of places from .. end - 1 of a row; `end` if there is none.
inline int nextSet(const std::uint8_t* row, int from, int end) {
    for (std::uint64_t eight; from + 8 <= end; from += 8) {
        std::memcpy(&eight, row + from, sizeof eight);
        if (eight) return from + __builtin_ctzll(eight) / 8;  // processors here are little-endian
    }
    while (from < end && !row[from]) ++from;
    return from;
}

// The last marked one of places 0 .. end - 1 of a row; -1 if there is none.
inline int lastSet(const std::uint8_t* row, int end) {
    for (std::uint64_t eight; end >= 8; end -= 8) {
        std::memcpy(&eight, row + end - 8, sizeof eight);
        if (eight) return end - 1 - __builtin_clzll(eight) / 8;
    }
    while (end > 0 && !row[end - 1]) --end;
    return end - 1;
}

}  // namespace ebsynth
