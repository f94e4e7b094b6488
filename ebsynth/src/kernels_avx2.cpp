// AVX2: a packed pixel of 16 bytes is one register of 16-bit differences.
#include "kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>

#include "mask.h"
#include "random.h"

// From here on functions may use AVX2; those of the headers above stay fit for every processor.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#include "sweep.inl"

namespace ebsynth {
namespace {

inline std::uint32_t sumOf(__m256i lanes) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1));
    return static_cast<std::uint32_t>(_mm_cvtsi128_si32(half));
}

inline __m256i widened(const std::uint8_t* bytes) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}

// Patches of a size and a number of blocks known at compile time; 0, 0: any.
template <int Patch, int Blocks>
class Avx2Lane {
 public:
    Avx2Lane(const std::int16_t* weights, int, int) {
        for (int b = 0; b < Blocks; ++b) {
            weights_[b] = _mm256_loadu_si256(
                reinterpret_cast<const __m256i*>(weights + b * kPixelBlock));
        }
    }

    void take(const std::uint8_t* corner, std::ptrdiff_t rowBytes) {
        target_ = corner;
        targetRow_ = rowBytes;
    }

    std::uint32_t distance(const std::uint8_t* corner, std::ptrdiff_t rowBytes,
                           std::int64_t bound) const {
        __m256i lanes = _mm256_setzero_si256();
        std::uint32_t sum = 0;
        // Rows far apart tell more: the middle one first, then those at the edges.
        add(lanes, corner, rowBytes, 2);
        sum = sumOf(lanes);
        if (sum >= bound) return sum;
        add(lanes, corner, rowBytes, 0);
        add(lanes, corner, rowBytes, 4);
        sum = sumOf(lanes);
        if (sum >= bound) return sum;
        add(lanes, corner, rowBytes, 1);
        add(lanes, corner, rowBytes, 3);
        return sumOf(lanes);
    }

    // See `RowLane`.
    std::uint32_t strip(const std::uint8_t* target, const std::uint8_t* source,
                        std::ptrdiff_t targetStep, std::ptrdiff_t sourceStep) const {
        return sumOf(stripOf(target, source, targetStep, sourceStep));
    }
    std::uint32_t exchange(const Pair& come, const Pair& gone, std::ptrdiff_t targetStep,
                           std::ptrdiff_t sourceStep) const {
        return sumOf(_mm256_sub_epi32(stripOf(come.target, come.source, targetStep, sourceStep),
                                      stripOf(gone.target, gone.source, targetStep, sourceStep)));
    }

    // See `RowLane`: a row of 5 pixels is 16 bytes and 4, which are put together for all rows.
    static std::uint32_t style(const std::uint8_t* target, std::ptrdiff_t targetRow,
                               const std::uint8_t* source, std::ptrdiff_t sourceRow, int) {
        __m256i lanes = _mm256_setzero_si256();
        for (int y = 0; y < Patch; ++y) {
            const __m256i d = _mm256_sub_epi16(widened(target + y * targetRow),
                                               widened(source + y * sourceRow));
            lanes = _mm256_add_epi32(lanes, _mm256_madd_epi16(d, d));
        }
        target += kPixelBlock;
        source += kPixelBlock;
        const __m256i d = _mm256_sub_epi16(_mm256_cvtepu8_epi16(lastPixels(target, targetRow)),
                                           _mm256_cvtepu8_epi16(lastPixels(source, sourceRow)));
        lanes = _mm256_add_epi32(lanes, _mm256_madd_epi16(d, d));
        const __m128i e = _mm_sub_epi16(_mm_cvtepu8_epi16(four(target + 4 * targetRow)),
                                        _mm_cvtepu8_epi16(four(source + 4 * sourceRow)));
        return sumOf(_mm256_add_epi32(lanes, _mm256_zextsi128_si256(_mm_madd_epi16(e, e))));
    }

    const std::int16_t* describe() {
        const __m256i fifth = _mm256_set1_epi16(kFifth), middle = _mm256_set1_epi16(kMiddle * kStep);
        for (int i = 0; i < Blocks; ++i) {
            __m256i sum = _mm256_setzero_si256(), across = sum, down = sum;
            for (int y = 0; y < Patch; ++y) {
                const std::uint8_t* row = target_ + y * targetRow_ + i * kPixelBlock;
                __m256i pixels[Patch];
                for (int x = 0; x < Patch; ++x) pixels[x] = widened(row + x * Blocks * kPixelBlock);
                const __m256i outer = _mm256_sub_epi16(pixels[4], pixels[0]);
                const __m256i inner = _mm256_sub_epi16(pixels[3], pixels[1]);
                const __m256i all = _mm256_add_epi16(
                    _mm256_add_epi16(_mm256_add_epi16(pixels[0], pixels[4]),
                                     _mm256_add_epi16(pixels[1], pixels[3])), pixels[2]);
                across = _mm256_add_epi16(across, _mm256_add_epi16(_mm256_slli_epi16(outer, 1), inner));
                down = _mm256_add_epi16(
                    down, _mm256_mullo_epi16(all, _mm256_set1_epi16(static_cast<short>(y - 2))));
                sum = _mm256_add_epi16(sum, all);
            }
            store(i, sum);
            store(Blocks + i, across);
            store(2 * Blocks + i, down);
            sketch_[i] = _mm256_srli_epi16(_mm256_mulhi_epu16(sum, fifth), 1);
            sketch_[Blocks + i] = _mm256_srli_epi16(_mm256_add_epi16(across, middle), 5);
            sketch_[2 * Blocks + i] = _mm256_srli_epi16(_mm256_add_epi16(down, middle), 5);
        }
        return numbers_;
    }

    // Of the patch described last, kNumbers of every byte.
    void copySketch(std::uint8_t* to) const {
        for (int i = 0; i < kNumbers * Blocks; ++i, to += kPixelBlock) {
            const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(sketch_[i]),
                                                   _mm256_extracti128_si256(sketch_[i], 1));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
        }
    }

    // See `RowLane`.
    std::uint32_t least(const std::uint8_t* sketch) const {
        __m256i means = _mm256_setzero_si256(), slopes = means;
        for (int i = 0; i < Blocks; ++i) {
            means = _mm256_add_epi32(means, square(i, sketch, i));
            slopes = _mm256_add_epi32(slopes, square(Blocks + i, sketch, i));
            slopes = _mm256_add_epi32(slopes, square(2 * Blocks + i, sketch, i));
        }
        return sumOf(_mm256_add_epi32(_mm256_mullo_epi32(means, _mm256_set1_epi32(Patch * Patch)),
                                      _mm256_mullo_epi32(slopes, _mm256_set1_epi32(kSlopeShare))));
    }

 private:
    static_assert(Patch == 5, "numbers below are of patches of 5");
    static constexpr short kFifth = 5243;  // 2^17 / 25, rounded up: sums of 25 bytes are divided
    static constexpr int kStep = 32, kSlopeShare = 20;  // see Scales

    static __m256i squares(const std::uint8_t* target, const std::uint8_t* source, __m256i weights) {
        const __m256i d = _mm256_sub_epi16(widened(target), widened(source));
        return _mm256_madd_epi16(d, _mm256_mullo_epi16(d, weights));
    }

    void add(__m256i& lanes, const std::uint8_t* corner, std::ptrdiff_t rowBytes, int row) const {
        lanes = _mm256_add_epi32(lanes, stripOf(target_ + row * targetRow_, corner + row * rowBytes,
                                                Blocks * kPixelBlock, Blocks * kPixelBlock));
    }

    __m256i stripOf(const std::uint8_t* target, const std::uint8_t* source,
                    std::ptrdiff_t targetStep, std::ptrdiff_t sourceStep) const {
        __m256i lanes = _mm256_setzero_si256();
        for (int i = 0; i < Patch; ++i) {
            for (int b = 0; b < Blocks; ++b) {
                lanes = _mm256_add_epi32(
                    lanes, squares(target + i * targetStep + b * kPixelBlock,
                                   source + i * sourceStep + b * kPixelBlock, weights_[b]));
            }
        }
        return lanes;
    }

    static __m128i four(const std::uint8_t* bytes) {
        std::int32_t word;
        std::memcpy(&word, bytes, sizeof word);
        return _mm_cvtsi32_si128(word);
    }

    // One pixel of style of each of four rows.
    static __m128i lastPixels(const std::uint8_t* first, std::ptrdiff_t row) {
        return _mm_unpacklo_epi64(_mm_unpacklo_epi32(four(first), four(first + row)),
                                  _mm_unpacklo_epi32(four(first + 2 * row), four(first + 3 * row)));
    }

    void store(int block, __m256i numbers) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(numbers_ + block * kPixelBlock), numbers);
    }

    __m256i square(int block, const std::uint8_t* sketch, int weights) const {
        __m256i d = _mm256_sub_epi16(sketch_[block], widened(sketch + block * kPixelBlock));
        d = _mm256_subs_epu16(_mm256_abs_epi16(d), _mm256_set1_epi16(1));
        return _mm256_madd_epi16(d, _mm256_mullo_epi16(d, weights_[weights]));
    }

    __m256i sketch_[kNumbers * Blocks], weights_[Blocks];
    std::int16_t numbers_[kNumbers * Blocks * kPixelBlock];
    const std::uint8_t* target_ = nullptr;
    std::ptrdiff_t targetRow_ = 0;
};

struct Avx2Block {
    using Sum = __m256i;

    static Sum plus(Sum sum, const std::uint8_t* target, const std::uint8_t* source,
                    const std::int16_t* weights) {
        const __m256i d = _mm256_sub_epi16(widened(target), widened(source));
        const __m256i factors = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(d, _mm256_mullo_epi16(d, factors)));
    }

    static std::uint32_t total(Sum sum) { return sumOf(sum); }
};

template <>
class Avx2Lane<0, 0> : public RowLane<Avx2Block, 0, 0> {
 public:
    using RowLane::RowLane;
};

}  // namespace

const Kernels* avx2Kernels() {
    static const Kernels all{"avx2", sweepWith<Avx2Lane>, measureWith<Avx2Lane>,
                             addStyleWith<Avx2Lane>, describeWith<Avx2Lane>};
    return &all;
}

}  // namespace ebsynth

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

namespace ebsynth {
const Kernels* avx2Kernels() { return nullptr; }
}  // namespace ebsynth

#endif
