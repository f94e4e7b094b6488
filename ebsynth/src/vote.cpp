#include "vote.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "mask.h"

namespace ebsynth {
namespace {

constexpr int kLargestFastPatch = 15;  // sums of 225 bytes fit 16 bits

// A pixel whose patches all lie inside both images: two channels a 32-bit sum. Reach: of the patch
// if known at compile time, or 0.
template <int Reach>
void sumInside(const Packed& source, const Field& field, int x, int y, int reach,
               std::uint32_t sums[kStyleBytes]) {
    const int r = Reach ? Reach : reach;
    const std::ptrdiff_t pixelBytes = source.pixelBytes, rowBytes = source.stride * pixelBytes;
    const std::uint8_t* origin = source.at(0, 0) + r * rowBytes + r * pixelBytes;
    const Match* row = &field.at(x - r, y - r);
    std::uint32_t even = 0, odd = 0;
    for (int dy = -r; dy <= r; ++dy, origin -= rowBytes, row += field.width) {
        const std::uint8_t* from = origin;
        for (int i = 0; i <= 2 * r; ++i, from -= pixelBytes) {
            std::uint32_t pixel;
            std::memcpy(&pixel, from + row[i].y * rowBytes + row[i].x * pixelBytes, sizeof pixel);
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

// Mean of the sums into a pixel; the largest change. Votes known at compile time divide faster.
template <int Known>
std::uint8_t settle(std::uint8_t* pixel, const std::uint32_t sums[kStyleBytes], int votes) {
    int largest = 0;
    const std::uint32_t count = static_cast<std::uint32_t>(Known ? Known : votes);
    for (int i = 0; i < kStyleBytes; ++i) {
        const std::uint8_t mean = static_cast<std::uint8_t>((sums[i] + count / 2) / count);
        largest = std::max(largest, std::abs(int(mean) - int(pixel[i])));
        pixel[i] = mean;
    }
    return static_cast<std::uint8_t>(largest);
}

}  // namespace

void voteRows(Packed& target, const Packed& source, const Field& field, int patch,
              const Mask& wanted, Mask& change, int first, int end) {
    const int r = patch / 2, width = target.width;
    const bool fast = patch <= kLargestFastPatch && source.width >= patch && source.height >= patch;
    for (int y = first; y < end; ++y) {
        const bool rowInside = fast && y >= r && y < target.height - r;
        const std::uint8_t* marks = wanted.data() + field.index(0, y);
        std::uint8_t* changes = change.data() + field.index(0, y);
        std::fill(changes, changes + width, std::uint8_t(0));
        for (int x = nextSet(marks, 0, width); x < width; x = nextSet(marks, x + 1, width)) {
            std::uint32_t sums[kStyleBytes];
            if (!rowInside || x < r || x >= width - r) {
                const int votes = sumAnywhere(source, field, x, y, r, sums);
                changes[x] = settle<0>(target.at(x, y), sums, votes);
            } else if (patch == 5) {
                sumInside<2>(source, field, x, y, r, sums);
                changes[x] = settle<25>(target.at(x, y), sums, 25);
            } else {
                sumInside<0>(source, field, x, y, r, sums);
                changes[x] = settle<0>(target.at(x, y), sums, patch * patch);
            }
        }
    }
}

void dilateRows(const Mask& mask, int width, int reach, std::uint8_t least, Mask& result, int first,
                int end) {
    const int height = static_cast<int>(mask.size()) / width;
    const int above = std::max(0, first - reach), below = std::min(height, end + reach);
    const std::size_t w = static_cast<std::size_t>(width);
    Mask rows(std::size_t(below - above) * w);
    Mask padded(w + 2 * std::size_t(reach));
    for (int y = above; y < below; ++y) {
        const std::uint8_t* __restrict from = mask.data() + std::size_t(y) * w;
        if (nextSet(from, 0, width) == width) continue;
        std::uint8_t* __restrict marks = padded.data() + reach;
        for (int x = 0; x < width; ++x) marks[x] = from[x] >= least;
        std::uint8_t* __restrict to = rows.data() + std::size_t(y - above) * w;
        if (reach == 2) {
            const std::uint8_t* __restrict p = padded.data();
            for (int x = 0; x < width; ++x) to[x] = p[x] | p[x + 1] | p[x + 2] | p[x + 3] | p[x + 4];
            continue;
        }
        for (int shift = -reach; shift <= reach; ++shift) {
            for (int x = 0; x < width; ++x) to[x] |= marks[x + shift];
        }
    }
    for (int y = first; y < end; ++y) {
        std::uint8_t* __restrict to = result.data() + std::size_t(y) * w;
        std::fill(to, to + w, std::uint8_t(0));
        const int last = std::min(below - 1, y + reach);
        for (int other = std::max(above, y - reach); other <= last; ++other) {
            const std::uint8_t* __restrict from = rows.data() + std::size_t(other - above) * w;
            for (int x = 0; x < width; ++x) to[x] |= from[x];
        }
    }
}

}  // namespace ebsynth
