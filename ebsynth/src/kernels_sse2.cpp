// SSE2, which every x86-64 processor has: a packed pixel of 16 bytes is two registers of 16-bit
// differences.
#include "kernels.h"

#if defined(__x86_64__)

#include <emmintrin.h>

#include "sweep.inl"

namespace ebsynth {
namespace {

struct Sse2Block {
    using Sum = __m128i;

    static Sum plus(Sum sum, const std::uint8_t* target, const std::uint8_t* source,
                    const std::int16_t* weights) {
        const __m128i zero = _mm_setzero_si128(), a = load(target), b = load(source);
        const __m128i low = _mm_sub_epi16(_mm_unpacklo_epi8(a, zero), _mm_unpacklo_epi8(b, zero));
        const __m128i high = _mm_sub_epi16(_mm_unpackhi_epi8(a, zero), _mm_unpackhi_epi8(b, zero));
        const __m128i block = _mm_add_epi32(
            _mm_madd_epi16(low, _mm_mullo_epi16(low, load(weights))),
            _mm_madd_epi16(high, _mm_mullo_epi16(high, load(weights + kPixelBlock / 2))));
        return _mm_add_epi32(sum, block);
    }

    static std::uint32_t total(Sum sum) {
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
        return static_cast<std::uint32_t>(_mm_cvtsi128_si32(sum));
    }

 private:
    static __m128i load(const void* from) {
        return _mm_loadu_si128(static_cast<const __m128i*>(from));
    }
};

template <int Patch, int Blocks>
using Sse2Lane = RowLane<Sse2Block, Patch, Blocks>;

}  // namespace

const Kernels* sse2Kernels() {
    static const Kernels all{"sse2", sweepWith<Sse2Lane>, measureWith<Sse2Lane>,
                             addStyleWith<Sse2Lane>, describeWith<Sse2Lane>};
    return &all;
}

}  // namespace ebsynth

#else

namespace ebsynth {
const Kernels* sse2Kernels() { return nullptr; }
}  // namespace ebsynth

#endif
