// SSE2, which every x86-64 processor has: a packed pixel of 16 bytes is two registers of 16-bit
// differences.
#include "kernels.h"

#if defined(__x86_64__)

#include <emmintrin.h>

#include "sweep.inl"

namespace ebsynth {
namespace {

template <int Patch, int Blocks>
class Sse2Lane {
 public:
    Sse2Lane(const std::int16_t* weights, int blocks, int patch)
        : weights_(weights), blocks_(Blocks ? Blocks : blocks), patch_(Patch ? Patch : patch) {}

    void take(const std::uint8_t* corner, std::ptrdiff_t rowBytes) {
        target_ = corner;
        targetRow_ = rowBytes;
    }

    std::uint32_t distance(const std::uint8_t* corner, std::ptrdiff_t rowBytes,
                           std::int64_t bound) const {
        __m128i lanes = _mm_setzero_si128();
        std::uint32_t sum = 0;
        const int patch = Patch ? Patch : patch_, blocks = Blocks ? Blocks : blocks_;
        for (int y = 0; y < patch; ++y) {
            const std::uint8_t* a = target_ + y * targetRow_;
            const std::uint8_t* b = corner + y * rowBytes;
            for (int x = 0; x < patch; ++x) {
                for (int i = 0; i < blocks; ++i, a += kPixelBlock, b += kPixelBlock) {
                    lanes = _mm_add_epi32(lanes, ofBlock(a, b, weights_ + i * kPixelBlock));
                }
            }
            sum = sumOf(lanes);
            if (sum >= bound) break;
        }
        return sum;
    }

 private:
    static __m128i load(const void* from) {
        return _mm_loadu_si128(static_cast<const __m128i*>(from));
    }

    static __m128i ofBlock(const std::uint8_t* a, const std::uint8_t* b,
                           const std::int16_t* weights) {
        const __m128i zero = _mm_setzero_si128(), target = load(a), source = load(b);
        const __m128i low = _mm_sub_epi16(_mm_unpacklo_epi8(target, zero),
                                          _mm_unpacklo_epi8(source, zero));
        const __m128i high = _mm_sub_epi16(_mm_unpackhi_epi8(target, zero),
                                           _mm_unpackhi_epi8(source, zero));
        return _mm_add_epi32(
            _mm_madd_epi16(low, _mm_mullo_epi16(low, load(weights))),
            _mm_madd_epi16(high, _mm_mullo_epi16(high, load(weights + kPixelBlock / 2))));
    }

    static std::uint32_t sumOf(__m128i lanes) {
        lanes = _mm_add_epi32(lanes, _mm_shuffle_epi32(lanes, 0x4E));
        lanes = _mm_add_epi32(lanes, _mm_shuffle_epi32(lanes, 0xB1));
        return static_cast<std::uint32_t>(_mm_cvtsi128_si32(lanes));
    }

    const std::int16_t* weights_;
    const int blocks_, patch_;
    const std::uint8_t* target_ = nullptr;
    std::ptrdiff_t targetRow_ = 0;
};

}  // namespace

const Kernels* sse2Kernels() {
    static const Kernels all{"sse2", sweepWith<Sse2Lane>, measureWith<Sse2Lane>};
    return &all;
}

}  // namespace ebsynth

#else

namespace ebsynth {
const Kernels* sse2Kernels() { return nullptr; }
}  // namespace ebsynth

#endif
