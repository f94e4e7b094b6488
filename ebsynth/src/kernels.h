// The inner loops, compiled once for every instruction set and chosen at run time.
//
// Distances are integers: sum over the patch and over bytes b of weight[b] * (target - source)^2,
// below 2^31 by the choice of the weights (`makeLayout`). Every instruction set gives the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "describe.h"
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
        const int reach = patch - 1;
        std::int32_t* row = at(place.x - reach, place.y - reach);
        for (int dy = -reach; dy <= reach; ++dy, row += stride) {
            const int high = sign * (patch - std::abs(dy));
            for (int dx = -reach; dx <= reach; ++dx) row[reach + dx] += high * (patch - std::abs(dx));
        }
    }

    // The same for patches of 5: eight of a row's nine numbers at a time.
    void addFive(Match place, int sign) const {
        typedef std::int32_t Eight __attribute__((vector_size(32)));
        const Eight rise = Eight{1, 2, 3, 4, 5, 4, 3, 2} * sign;
        Eight tent = rise;
        std::int32_t* row = at(place.x - 4, place.y - 4);
        for (int high = 1; high <= 9; ++high, row += stride) {
            Eight sums;
            std::memcpy(&sums, row, sizeof sums);
            sums += tent;
            std::memcpy(row, &sums, sizeof sums);
            row[8] += tent[0];
            tent = high < 5 ? tent + rise : tent - rise;
        }
    }
};

// A pixel's match before and after a sweep.
struct Move {
    Match from, to;
};

// Pixels that two patches of one image share.
inline int overlap(Match a, Match b, int patch) {
    const int dx = patch - std::abs(int(a.x) - int(b.x)), dy = patch - std::abs(int(a.y) - int(b.y));
    return (dx > 0 ? dx : 0) * (dy > 0 ? dy : 0);
}

// A random step away from a match.
struct Step {
    std::int16_t x, y;
};
constexpr int kStepSets = 1024;  // to choose from; a set has a step of every radius
constexpr int kStepsOfSet = 16;  // as many as there are radii at most

// One sweep of search over a band of rows.
struct Sweep {
    const Packed* target = nullptr;
    const Packed* source = nullptr;
    const std::int16_t* weights = nullptr;
    int patch = 5;
    Bounds bounds{1, 1, 1};
    Match* matches = nullptr;              // whole field, row by row
    std::uint32_t* distances = nullptr;    // of the matches
    std::uint32_t* guides = nullptr;       // the guides' part of them, which stays with the match
    const Packed* targetStyle = nullptr;   // the style alone, kStyleBytes a pixel
    const Packed* sourceStyle = nullptr;
    const std::uint8_t* active = nullptr;  // pixels to search for
    std::uint8_t* moved = nullptr;         // set to `stamp` where the match changed
    std::uint8_t stamp = 1;
    std::uint8_t retry = 0;                // neighbours stamped less have nothing new to say
    Usage usage;                           // this band's own
    std::vector<Move>* moves = nullptr;    // takes what changed
    std::int64_t penalty = 0;              // of one more in a usage sum, times 2^16
    int firstRow = 0, endRow = 0;
    bool forward = true;
    const Step* steps = nullptr;           // sets of random ones, the smallest first
    int radii = 0;                         // of the random search; 0: none
    int farRadii = 0;                      // and of patches with this distance with penalty or more
    std::int64_t farFrom = 0;
    const Match* proposed = nullptr;       // one for every pixel to try as well; null: none
    const Leaves* leaves = nullptr;        // of a PatchTree, to try as well; null: none
    std::uint8_t* tried = nullptr;         // pixels whose leaf was tried
    std::int64_t leafFrom = 0;             // least distance with penalty whose leaf is searched
    int leafTries = 0;                     // of a leaf
    std::int64_t randomFrom = 0;           // and that is searched at random
    std::uint64_t seed = 0;
    std::int64_t useChange = 0;            // out: of the sum of squares of the use
};

// Patches to describe: `columns` of one row, `spacing` pixels apart.
struct Describe {
    const Packed* source = nullptr;
    const std::int16_t* weights = nullptr;
    int patch = 5;
    int x = 0, y = 0;  // of the first one's middle
    int columns = 0, spacing = 1;
    std::int16_t* numbers = nullptr;   // out: kNumbers of every byte, and as many
    std::uint8_t* sketches = nullptr;  // bytes, patch after patch
};

struct Kernels {
    const char* name;
    // Searches better matches for the active pixels of a band.
    void (*sweep)(Sweep&);
    // Distances of the matches of the pixels with `wanted` set, in rows firstRow .. endRow - 1.
    void (*measure)(const Sweep&, const std::uint8_t* wanted);
    // The same where the guides' part is known: the style's is added.
    void (*addStyle)(const Sweep&, const std::uint8_t* wanted);
    // Describes patches as the search describes those of the target.
    void (*describe)(const Describe&);
};

// The best kernels this processor can run; a name asks for one of them, null if it cannot run.
const Kernels* kernels(const char* name = nullptr);

// One a file; null where the file was compiled for another processor.
const Kernels* scalarKernels();
const Kernels* sse2Kernels();
const Kernels* avx2Kernels();
const Kernels* neonKernels();

}  // namespace ebsynth
