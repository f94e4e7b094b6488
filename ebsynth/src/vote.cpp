#include "vote.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "mask.h"

namespace ebsynth {
namespace {

constexpr int kLargestKept = 15;  // sums of 225 bytes fit 16 bits

typedef std::uint8_t Bytes4 __attribute__((vector_size(4)));
typedef std::uint8_t Bytes8 __attribute__((vector_size(8)));
typedef std::uint16_t Sums4 __attribute__((vector_size(8)));
typedef std::uint16_t Sums8 __attribute__((vector_size(16)));

// Adds pixels to their sums, and takes away those that were there; Bytes: of one or two pixels.
template <class Bytes, class Sums, bool Replaces>
inline void addPixels(std::uint16_t* to, const std::uint8_t* from, const std::uint8_t* gone) {
    Bytes bytes;
    Sums sums;
    std::memcpy(&bytes, from, sizeof bytes);
    std::memcpy(&sums, to, sizeof sums);
    sums += __builtin_convertvector(bytes, Sums);
    if (Replaces) {
        std::memcpy(&bytes, gone, sizeof bytes);
        sums -= __builtin_convertvector(bytes, Sums);
    }
    std::memcpy(to, &sums, sizeof sums);
}

// The same for a row of five pixels.
template <bool Replaces>
inline void addFive(std::uint16_t* to, const std::uint8_t* from, const std::uint8_t* gone) {
    constexpr int kTwo = 2 * kStyleBytes;
    addPixels<Bytes8, Sums8, Replaces>(to, from, gone);
    addPixels<Bytes8, Sums8, Replaces>(to + kTwo, from + kTwo, gone + kTwo);
    addPixels<Bytes4, Sums4, Replaces>(to + 2 * kTwo, from + 2 * kTwo, gone + 2 * kTwo);
}

// Mean of 25 votes into a pixel; the largest change.
inline std::uint8_t settleOfFive(std::uint8_t* pixel, const std::uint16_t* sums) {
    typedef std::uint32_t Wide4 __attribute__((vector_size(16)));
    constexpr std::uint32_t kParts = 5243;  // 2^17 / 25, rounded up: exact for sums of 25 bytes
    Sums4 sum;
    std::memcpy(&sum, sums, sizeof sum);
    const Wide4 product = __builtin_convertvector(sum + 12, Wide4) * kParts;
    const Bytes4 mean = __builtin_convertvector(product >> 17, Bytes4);
    std::uint32_t now, before;
    std::memcpy(&now, &mean, sizeof now);
    std::memcpy(&before, pixel, sizeof before);
    if (now == before) return 0;
    int largest = 0;
    for (int i = 0; i < kStyleBytes; ++i) {
        largest = std::max(largest, std::abs(int(mean[i]) - int(pixel[i])));
    }
    std::memcpy(pixel, &now, sizeof now);
    return static_cast<std::uint8_t>(largest);
}

// The same of any number of votes.
template <class Sum>
std::uint8_t settlePixel(std::uint8_t* pixel, const Sum* sums, int votes) {
    int largest = 0;
    const std::uint32_t count = static_cast<std::uint32_t>(votes);
    for (int i = 0; i < kStyleBytes; ++i) {
        const std::uint8_t mean = static_cast<std::uint8_t>((sums[i] + count / 2) / count);
        largest = std::max(largest, std::abs(int(mean) - int(pixel[i])));
        pixel[i] = mean;
    }
    return static_cast<std::uint8_t>(largest);
}

// The style of an image alone, edges repeated.
Packed styleOf(const Packed& image) {
    Packed style(image.width, image.height, image.pad, kStyleBytes);
    for (int y = 0; y < image.height; ++y) {
        const std::uint8_t* from = image.at(0, y);
        std::uint8_t* to = style.at(0, y);
        for (int x = 0; x < image.width; ++x, to += kStyleBytes, from += image.pixelBytes) {
            std::memcpy(to, from, kStyleBytes);
        }
    }
    style.repeatEdges();
    return style;
}

}  // namespace

Votes::Votes(const Packed& source, const Packed& target, int patch)
    : source_(source), patch_(patch), width_(target.width), height_(target.height),
      kept_(patch <= kLargestKept && source.width >= patch && source.height >= patch),
      sourceStyle_(styleOf(source)), targetStyle_(styleOf(target)) {
    if (kept_) sums_.resize(std::size_t(target.width) * std::size_t(target.height) * kStyleBytes);
}

void Votes::finish(Packed& target) {
    target.repeatEdges();
    targetStyle_.repeatEdges();
}

// Into rows first .. end - 1 only, which are one thread's own.
template <bool Replaces>
void Votes::add(Match match, Match gone, int x, int y, int first, int end) {
    const int reach = patch_ / 2;
    const int left = std::min(reach, x), right = std::min(reach, width_ - 1 - x);
    const int top = std::min(reach, y - first), bottom = std::min(reach, end - 1 - y);
    const std::ptrdiff_t row = std::ptrdiff_t(width_) * kStyleBytes;
    const std::ptrdiff_t sourceRow = std::ptrdiff_t(sourceStyle_.stride) * kStyleBytes;
    std::uint16_t* to = sums_.data() + (y - top) * row + (x - left) * kStyleBytes;
    const std::uint8_t* from = sourceStyle_.at(match.x - left, match.y - top);
    const std::uint8_t* old = sourceStyle_.at(gone.x - left, gone.y - top);
    if (patch_ == 5 && left == 2 && right == 2) {
        if (top == 2 && bottom == 2) {
            for (int i = 0; i < 5; ++i) {
                addFive<Replaces>(to + i * row, from + i * sourceRow, old + i * sourceRow);
            }
            return;
        }
        for (int dy = -top; dy <= bottom; ++dy, to += row, from += sourceRow, old += sourceRow) {
            addFive<Replaces>(to, from, old);
        }
        return;
    }
    for (int dy = -top; dy <= bottom; ++dy, to += row, from += sourceRow, old += sourceRow) {
        for (int i = 0; i < (left + right + 1) * kStyleBytes; i += kStyleBytes) {
            addPixels<Bytes4, Sums4, Replaces>(to + i, from + i, old + i);
        }
    }
}

void Votes::count(const Field& field, Threads& threads) {
    if (!kept_) return;
    std::fill(sums_.begin(), sums_.end(), std::uint16_t(0));
    const int reach = patch_ / 2;
    threads.runRows(height_, [&](int first, int end) {
        for (int y = std::max(0, first - reach); y < std::min(height_, end + reach); ++y) {
            for (int x = 0; x < width_; ++x) {
                const Match match = field.at(x, y);
                add<false>(match, match, x, y, first, end);
            }
        }
    });
}

void Votes::follow(const Field& field, const std::vector<Match>& before, const Mask& moved,
                   Threads& threads) {
    if (!kept_) return;
    const int reach = patch_ / 2;
    threads.runRows(height_, [&](int first, int end) {
        for (int y = std::max(0, first - reach); y < std::min(height_, end + reach); ++y) {
            const std::uint8_t* marks = &moved[field.index(0, y)];
            for (int x = nextSet(marks, 0, width_); x < width_; x = nextSet(marks, x + 1, width_)) {
                const Match from = before[field.index(x, y)], to = field.at(x, y);
                if (from != to) add<true>(to, from, x, y, first, end);
            }
        }
    });
}

// Patches of any size, in a source of any size; returns how many votes there are.
int Votes::sumAnywhere(const Field& field, int x, int y, std::uint32_t sums[kStyleBytes]) const {
    int votes = 0;
    const int r = patch_ / 2;
    std::fill(sums, sums + kStyleBytes, 0u);
    for (int dy = -r; dy <= r; ++dy) {
        for (int dx = -r; dx <= r; ++dx) {
            const int px = x + dx, py = y + dy;
            if (px < 0 || py < 0 || px >= width_ || py >= height_) continue;
            const Match match = field.at(px, py);
            const int sx = match.x - dx, sy = match.y - dy;
            if (sx < 0 || sy < 0 || sx >= source_.width || sy >= source_.height) continue;
            const std::uint8_t* pixel = source_.at(sx, sy);
            for (int i = 0; i < kStyleBytes; ++i) sums[i] += pixel[i];
            ++votes;
        }
    }
    return votes;
}

void Votes::settle(Packed& target, const Field& field, const Mask& wanted, Mask& change, int first,
                   int end) {
    const int r = patch_ / 2;
    for (int y = first; y < end; ++y) {
        const std::uint8_t* marks = wanted.data() + field.index(0, y);
        std::uint8_t* changes = change.data() + field.index(0, y);
        const int rows = std::min(r, y) + std::min(r, height_ - 1 - y) + 1;
        std::fill(changes, changes + width_, std::uint8_t(0));
        for (int x = nextSet(marks, 0, width_); x < width_; x = nextSet(marks, x + 1, width_)) {
            std::uint8_t* pixel = targetStyle_.at(x, y);
            if (kept_) {
                const std::uint16_t* sums = &sums_[field.index(x, y) * kStyleBytes];
                const int votes = rows * (std::min(r, x) + std::min(r, width_ - 1 - x) + 1);
                changes[x] = votes == 25 ? settleOfFive(pixel, sums)
                                         : settlePixel(pixel, sums, votes);
            } else {
                std::uint32_t sums[kStyleBytes];
                const int votes = sumAnywhere(field, x, y, sums);
                changes[x] = settlePixel(pixel, sums, votes);
            }
            if (changes[x]) std::memcpy(target.at(x, y), pixel, kStyleBytes);
        }
    }
}

void dilateRows(const Mask& mask, int width, int reach, std::uint8_t least, Mask& result, int first,
                int end) {
    const int height = static_cast<int>(mask.size()) / width;
    const int above = std::max(0, first - reach), below = std::min(height, end + reach);
    const std::size_t w = static_cast<std::size_t>(width);
    // Rows spread along x; only those that hold anything are written and read.
    const std::unique_ptr<std::uint8_t[]> rows(new std::uint8_t[std::size_t(below - above) * w]);
    std::vector<bool> holds(std::size_t(below - above));
    Mask padded(w + 2 * std::size_t(reach));
    for (int y = above; y < below; ++y) {
        const std::uint8_t* __restrict from = mask.data() + std::size_t(y) * w;
        if (nextSet(from, 0, width) == width) continue;
        holds[std::size_t(y - above)] = true;
        std::uint8_t* __restrict marks = padded.data() + reach;
        for (int x = 0; x < width; ++x) marks[x] = from[x] >= least;
        std::uint8_t* __restrict to = rows.get() + std::size_t(y - above) * w;
        const std::uint8_t* __restrict p = padded.data();
        if (reach == 2) {
            for (int x = 0; x < width; ++x) to[x] = p[x] | p[x + 1] | p[x + 2] | p[x + 3] | p[x + 4];
            continue;
        }
        std::copy_n(p, w, to);
        for (int shift = 1; shift <= 2 * reach; ++shift) {
            for (int x = 0; x < width; ++x) to[x] |= p[x + shift];
        }
    }
    for (int y = first; y < end; ++y) {
        std::uint8_t* __restrict to = result.data() + std::size_t(y) * w;
        std::fill(to, to + w, std::uint8_t(0));
        const int last = std::min(below - 1, y + reach);
        for (int other = std::max(above, y - reach); other <= last; ++other) {
            if (!holds[std::size_t(other - above)]) continue;
            const std::uint8_t* __restrict from = rows.get() + std::size_t(other - above) * w;
            for (int x = 0; x < width; ++x) to[x] |= from[x];
        }
    }
}

}  // namespace ebsynth
