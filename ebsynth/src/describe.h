// What a PatchTree knows of a patch: of every byte the sum, and the slopes along rows and columns.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "field.h"

namespace ebsynth {

constexpr int kNumbers = 3;    // of a byte: sum, slope along the row, slope along the column
constexpr int kMiddle = 120;   // a slope of 0 in a sketch
constexpr int kMostOfLeaf = 32;

// How the numbers of patches of a size are kept: halved until 16 bits hold them, or as a sketch of a
// byte each, the mean and slopes in steps, rounded down.
//
// Sketches tell the least distance of two patches: a difference of 1 in the mean of a byte with
// weight 1 adds `area`, and one in a slope at least `slopeShare`. The three do not overlap, since a
// patch's mean and slopes are orthogonal parts of it.
struct Scales {
    int area, shift = 0, step;
    std::uint32_t slopeShare;

    explicit Scales(int patch) : area(patch * patch) {
        const int reach = patch / 2, slope = 255 * patch * (reach * (reach + 1) / 2);
        while (std::max(255 * area, slope) >> shift > 32767) ++shift;
        step = std::max(1, (slope + kMiddle - 1) / kMiddle);
        const std::int64_t squares = std::max(1, reach * (reach + 1) * (2 * reach + 1) / 3);
        slopeShare = static_cast<std::uint32_t>(std::int64_t(step) * step / (patch * squares));
        parts = (std::int64_t(1) << kBits) / area + 1;
        steps = (std::int64_t(1) << kBits) / step + 1;
    }
    std::int16_t number(std::int32_t total) const {
        return static_cast<std::int16_t>(total >> shift);
    }
    std::uint8_t mean(std::int32_t sum) const {
        return static_cast<std::uint8_t>((sum * parts) >> kBits);
    }
    std::uint8_t slope(std::int32_t total) const {
        return static_cast<std::uint8_t>(((total + kMiddle * step) * steps) >> kBits);
    }

 private:
    static constexpr int kBits = 40;
    std::int64_t parts, steps;  // 2^kBits by area and step, rounded up: products for divisions
};

// The sums of all `bytes` of a pixel, then their slopes along rows, then those along columns. Slopes
// come from sums of sums, which need no products.
inline void describe(const std::uint8_t* corner, std::ptrdiff_t rowBytes, int patch, int bytes,
                     std::int32_t* __restrict totals) {
    constexpr int kAtOnce = 16;
    const int middle = patch / 2 + 1;
    for (int first = 0; first < bytes; first += kAtOnce) {
        std::int32_t sums[kAtOnce] = {}, across[kAtOnce] = {}, down[kAtOnce] = {};
        const std::uint8_t* row = corner + first;
        for (int y = 0; y < patch; ++y, row += rowBytes) {
            std::int32_t rowSums[kAtOnce] = {};
            const std::uint8_t* pixel = row;
            for (int x = 0; x < patch; ++x, pixel += bytes) {
                for (int i = 0; i < kAtOnce; ++i) {
                    rowSums[i] += pixel[i];
                    across[i] -= rowSums[i];
                }
            }
            for (int i = 0; i < kAtOnce; ++i) {
                sums[i] += rowSums[i];
                down[i] -= sums[i];
            }
        }
        for (int i = 0; i < kAtOnce; ++i) {
            totals[first + i] = sums[i];
            totals[bytes + first + i] = across[i] + middle * sums[i];
            totals[2 * bytes + first + i] = down[i] + middle * sums[i];
        }
    }
}

// A node of a PatchTree: its children are 2 i and 2 i + 1, the root is 1.
struct Node {
    std::uint16_t number;  // of the description
    std::int16_t border;   // from it on to the second half
};

// What a PatchTree shows to the search. Leaf i holds the patches begins[i] .. begins[i + 1] - 1, with
// a sketch for each.
struct Leaves {
    const Node* nodes;
    int depth;
    const std::int32_t* begins;
    const Match* places;
    const std::uint8_t* sketches;
};

}  // namespace ebsynth
