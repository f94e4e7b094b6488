// The nearest-neighbour field: for every target pixel, the source pixel its patch is taken from.
#pragma once

#include <cstdint>
#include <vector>

namespace ebsynth {

// A source pixel.
struct Match {
    std::uint16_t x = 0;
    std::uint16_t y = 0;

    bool operator==(const Match& other) const { return both() == other.both(); }
    bool operator!=(const Match& other) const { return !(*this == other); }
    std::uint32_t both() const { return std::uint32_t(y) << 16 | x; }
};

struct Field {
    int width = 0;  // of the target
    int height = 0;
    int sourceWidth = 0;
    int sourceHeight = 0;
    std::vector<Match> matches;  // row by row

    Field() = default;
    Field(int w, int h, int sw, int sh)
        : width(w), height(h), sourceWidth(sw), sourceHeight(sh),
          matches(static_cast<std::size_t>(w) * static_cast<std::size_t>(h)) {}

    Match& at(int x, int y) { return matches[index(x, y)]; }
    const Match& at(int x, int y) const { return matches[index(x, y)]; }
    std::size_t index(int x, int y) const {
        return static_cast<std::size_t>(y) * static_cast<std::size_t>(width) +
               static_cast<std::size_t>(x);
    }
};

// Where matches may lie: patches stay inside the source, unless it is smaller than a patch.
struct Bounds {
    int left, top, right, bottom;  // all included

    Bounds(int width, int height, int patch)
        : left(0), top(0), right(width - 1), bottom(height - 1) {
        const int r = patch / 2;
        if (width >= patch) { left = r; right = width - 1 - r; }
        if (height >= patch) { top = r; bottom = height - 1 - r; }
    }
    bool holds(int x, int y) const {
        return (x >= left) & (x <= right) & (y >= top) & (y <= bottom);
    }
    Match nearest(int x, int y) const {
        x = x < left ? left : x > right ? right : x;
        y = y < top ? top : y > bottom ? bottom : y;
        return {static_cast<std::uint16_t>(x), static_cast<std::uint16_t>(y)};
    }
};

}  // namespace ebsynth
