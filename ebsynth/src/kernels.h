// The inner loops, compiled once for every instruction set and chosen at run time.
//
// Distances are integers: sum over the patch and over bytes b of weight[b] * (target - source)^2,
// below 2^31 by the choice of the weights (`makeLayout`). Every instruction set gives the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "field.h"
#include "image.h"

namespace ebsynth {

// How often patches cover what a patch covers: the sum over a patch of the number of patches that
// cover each of its pixels, kept for every source pixel that a patch may be centred on.
struct Usage {
    int stride = 0;  // of rows, in numbers
    int pad = 0;
    std::int32_t* sums = nullptr;

    std::int32_t* at(int x, int y) const {
        return sums + static_cast<std::ptrdiff_t>(y + pad) * stride + (x + pad);
    }

    // One patch more (sign 1) or less (-1) at a place: a tent over all patches that overlap it.
    void add(Match place, int patch, int sign) const {
        addRows(place, patch, sign, 1 - patch, patch - 1);
    }

    // The tent's rows from .. to, both included, counted from its middle.
    void addRows(Match place, int patch, int sign, int from, int to) const {
        const int reach = patch - 1;
        for (int dy = from; dy <= to; ++dy) {
            const int high = sign * (patch - (dy < 0 ? -dy : dy));
            std::int32_t* row = at(place.x - reach, place.y + dy);
            for (int i = 0; i < reach; ++i) row[i] += high * (i + 1);
            row[reach] += high * patch;
            for (int i = 1; i <= reach; ++i) row[reach + i] += high * (patch - i);
        }
    }
};

// A pixel's match before and after a sweep.
struct Move {
    Match from, to;
};

// One sweep of search over a band of rows.
struct Sweep {
    const Packed* target = nullptr;
    const Packed* source = nullptr;
    const std::int16_t* weights = nullptr;
    int patch = 5;
    Bounds bounds{1, 1, 1};
    Match* matches = nullptr;              // whole field, row by row
    std::uint32_t* distances = nullptr;    // of the matches
    const std::uint8_t* active = nullptr;  // pixels to search for
    std::uint8_t* moved = nullptr;         // set where the match changed
    Usage usage;                           // this band's own
    std::vector<Move>* moves = nullptr;    // takes what changed; null: not wanted
    std::int64_t penalty = 0;              // of one more in a usage sum, times 2^16
    int firstRow = 0, endRow = 0;
    bool forward = true;
    int largestRadius = 0;                 // of the random search; 0: none
    std::uint64_t seed = 0;
};

struct Kernels {
    const char* name;
    // Searches better matches for the active pixels of a band.
    void (*sweep)(const Sweep&);
    // Distances of the matches of the pixels with `wanted` set, in rows firstRow .. endRow - 1.
    void (*measure)(const Sweep&, const std::uint8_t* wanted);
};

// The best kernels this processor can run; a name asks for one of them, null if it cannot run.
const Kernels* kernels(const char* name = nullptr);

// One a file; null where the file was compiled for another processor.
const Kernels* scalarKernels();
const Kernels* sse2Kernels();
const Kernels* avx2Kernels();
const Kernels* neonKernels();

}  // namespace ebsynth
