#include "vote.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace ebsynth {
namespace {

constexpr int kLargestFastPatch = 15;  // sums of 225 bytes fit 16 bits

// A pixel whose patches all lie inside both images: two channels a 32-bit sum.
void sumInside(const Packed& source, const Field& field, int x, int y, int r,
               std::uint32_t sums[kStyleBytes]) {
    std::uint32_t even = 0, odd = 0;
    for (int dy = -r; dy <= r; ++dy) {
        const Match* match = &field.at(x - r, y + dy);
        for (int dx = -r; dx <= r; ++dx, ++match) {
            std::uint32_t pixel;
            std::memcpy(&pixel, source.at(match->x - dx, match->y - dy), sizeof pixel);
            even += pixel & 0x00FF00FFu;
            odd += (pixel >> 8) & 0x00FF00FFu;
        }
    }
    sums[0] = even & 0xFFFF;
    sums[1] = odd & 0xFFFF;
    sums[2] = even >> 16;
    sums[3] = odd >> 16;
}

// Any pixel; returns how many votes there are.
int sumAnywhere(const Packed& source, const Field& field, int x, int y, int r,
                std::uint32_t sums[kStyleBytes]) {
    int votes = 0;
    std::fill(sums, sums + kStyleBytes, 0u);
    for (int dy = -r; dy <= r; ++dy) {
        for (int dx = -r; dx <= r; ++dx) {
            const int px = x + dx, py = y + dy;
            if (px < 0 || py < 0 || px >= field.width || py >= field.height) continue;
            const Match match = field.at(px, py);
            const int sx = match.x - dx, sy = match.y - dy;
            if (sx < 0 || sy < 0 || sx >= source.width || sy >= source.height) continue;
            const std::uint8_t* pixel = source.at(sx, sy);
            for (int i = 0; i < kStyleBytes; ++i) sums[i] += pixel[i];
            ++votes;
        }
    }
    return votes;
}

// Mean of the sums into a pixel; the largest change.
std::uint8_t settle(std::uint8_t* pixel, const std::uint32_t sums[kStyleBytes], int votes) {
    int largest = 0;
    for (int i = 0; i < kStyleBytes; ++i) {
        const std::uint32_t count = static_cast<std::uint32_t>(votes);
        const std::uint8_t mean = static_cast<std::uint8_t>((sums[i] + count / 2) / count);
        largest = std::max(largest, std::abs(int(mean) - int(pixel[i])));
        pixel[i] = mean;
    }
    return static_cast<std::uint8_t>(largest);
}

}  // namespace

void voteRows(Packed& target, const Packed& source, const Field& field, int patch,
              const Mask& wanted, Mask& change, int first, int end) {
    const int r = patch / 2;
    const bool fast = patch <= kLargestFastPatch && source.width >= patch && source.height >= patch;
    for (int y = first; y < end; ++y) {
        const bool rowInside = fast && y >= r && y < target.height - r;
        for (int x = 0; x < target.width; ++x) {
            const std::size_t at = field.index(x, y);
            if (!wanted[at]) {
                change[at] = 0;
                continue;
            }
            std::uint32_t sums[kStyleBytes];
            int votes = patch * patch;
            if (rowInside && x >= r && x < target.width - r) {
                sumInside(source, field, x, y, r, sums);
            } else {
                votes = sumAnywhere(source, field, x, y, r, sums);
            }
            change[at] = settle(target.at(x, y), sums, votes);
        }
    }
}

void dilateRows(const Mask& mask, int width, int reach, std::uint8_t least, Mask& result, int first,
                int end) {
    const int height = static_cast<int>(mask.size()) / width;
    const int above = std::max(0, first - reach), below = std::min(height, end + reach);
    const std::size_t w = static_cast<std::size_t>(width);
    Mask rows(std::size_t(below - above) * w, 0);
    for (int y = above; y < below; ++y) {
        const std::uint8_t* from = mask.data() + std::size_t(y) * w;
        std::uint8_t* to = rows.data() + std::size_t(y - above) * w;
        for (int shift = -reach; shift <= reach; ++shift) {
            const int left = std::max(0, -shift), right = std::min(width, width - shift);
            for (int x = left; x < right; ++x) to[x] |= from[x + shift] >= least;
        }
    }
    for (int y = first; y < end; ++y) {
        std::uint8_t* to = result.data() + std::size_t(y) * w;
        std::fill(to, to + w, std::uint8_t(0));
        const int last = std::min(below - 1, y + reach);
        for (int other = std::max(above, y - reach); other <= last; ++other) {
            const std::uint8_t* from = rows.data() + std::size_t(other - above) * w;
            for (int x = 0; x < width; ++x) to[x] |= from[x];
        }
    }
}

}  // namespace ebsynth
