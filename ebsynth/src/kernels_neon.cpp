// NEON, which every 64-bit ARM processor has.
#include "kernels.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include "sweep.inl"

namespace ebsynth {
namespace {

template <int Patch, int Blocks>
class NeonLane {
 public:
    NeonLane(const std::int16_t* weights, int blocks, int patch)
        : weights_(weights), blocks_(Blocks ? Blocks : blocks), patch_(Patch ? Patch : patch) {}

    void take(const std::uint8_t* corner, std::ptrdiff_t rowBytes) {
        target_ = corner;
        targetRow_ = rowBytes;
    }

    std::uint32_t distance(const std::uint8_t* corner, std::ptrdiff_t rowBytes,
                           std::int64_t bound) const {
        uint32x4_t lanes = vdupq_n_u32(0);
        std::uint32_t sum = 0;
        const int patch = Patch ? Patch : patch_, blocks = Blocks ? Blocks : blocks_;
        for (int y = 0; y < patch; ++y) {
            const std::uint8_t* a = target_ + y * targetRow_;
            const std::uint8_t* b = corner + y * rowBytes;
            for (int x = 0; x < patch; ++x) {
                for (int i = 0; i < blocks; ++i, a += kPixelBlock, b += kPixelBlock) {
                    lanes = withBlock(lanes, a, b, weights_ + i * kPixelBlock);
                }
            }
            sum = vaddvq_u32(lanes);
            if (sum >= bound) break;
        }
        return sum;
    }

 private:
    // |difference| fits 8 bits and its product with a weight 16: 255 * 128.
    static uint32x4_t withBlock(uint32x4_t lanes, const std::uint8_t* a, const std::uint8_t* b,
                                const std::int16_t* weights) {
        const uint8x16_t difference = vabdq_u8(vld1q_u8(a), vld1q_u8(b));
        const uint16x8_t low = vmovl_u8(vget_low_u8(difference));
        const uint16x8_t high = vmovl_high_u8(difference);
        const uint16x8_t lowWeights = vreinterpretq_u16_s16(vld1q_s16(weights));
        const uint16x8_t highWeights = vreinterpretq_u16_s16(vld1q_s16(weights + kPixelBlock / 2));
        const uint16x8_t lowProduct = vmulq_u16(low, lowWeights);
        const uint16x8_t highProduct = vmulq_u16(high, highWeights);
        lanes = vmlal_u16(lanes, vget_low_u16(low), vget_low_u16(lowProduct));
        lanes = vmlal_high_u16(lanes, low, lowProduct);
        lanes = vmlal_u16(lanes, vget_low_u16(high), vget_low_u16(highProduct));
        return vmlal_high_u16(lanes, high, highProduct);
    }

    const std::int16_t* weights_;
    const int blocks_, patch_;
    const std::uint8_t* target_ = nullptr;
    std::ptrdiff_t targetRow_ = 0;
};

}  // namespace

const Kernels* neonKernels() {
    static const Kernels all{"neon", sweepWith<NeonLane>, measureWith<NeonLane>};
    return &all;
}

}  // namespace ebsynth

#else

namespace ebsynth {
const Kernels* neonKernels() { return nullptr; }
}  // namespace ebsynth

#endif
