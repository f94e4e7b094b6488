// NEON, which every 64-bit ARM processor has.
#include "kernels.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include "sweep.inl"

namespace ebsynth {
namespace {

struct NeonBlock {
    using Sum = uint32x4_t;

    // |difference| fits 8 bits and its product with a weight 16: 255 * 128.
    static Sum plus(Sum sum, const std::uint8_t* target, const std::uint8_t* source,
                    const std::int16_t* weights) {
        const uint8x16_t difference = vabdq_u8(vld1q_u8(target), vld1q_u8(source));
        const uint16x8_t low = vmovl_u8(vget_low_u8(difference));
        const uint16x8_t high = vmovl_high_u8(difference);
        const uint16x8_t lowWeights = vreinterpretq_u16_s16(vld1q_s16(weights));
        const uint16x8_t highWeights = vreinterpretq_u16_s16(vld1q_s16(weights + kPixelBlock / 2));
        const uint16x8_t lowProduct = vmulq_u16(low, lowWeights);
        const uint16x8_t highProduct = vmulq_u16(high, highWeights);
        sum = vmlal_u16(sum, vget_low_u16(low), vget_low_u16(lowProduct));
        sum = vmlal_high_u16(sum, low, lowProduct);
        sum = vmlal_u16(sum, vget_low_u16(high), vget_low_u16(highProduct));
        return vmlal_high_u16(sum, high, highProduct);
    }

    static std::uint32_t total(Sum sum) { return vaddvq_u32(sum); }
};

template <int Patch, int Blocks>
using NeonLane = RowLane<NeonBlock, Patch, Blocks>;

}  // namespace

const Kernels* neonKernels() {
    static const Kernels all{"neon", sweepWith<NeonLane>, measureWith<NeonLane>,
                             addStyleWith<NeonLane>, describeWith<NeonLane>};
    return &all;
}

}  // namespace ebsynth

#else

namespace ebsynth {
const Kernels* neonKernels() { return nullptr; }
}  // namespace ebsynth

#endif
