// Plain arithmetic: the reference for the other instruction sets, and for processors without any.
#include <cstddef>

#include "sweep.inl"

namespace ebsynth {
namespace {

template <int Patch, int Blocks>
class ScalarLane {
 public:
    ScalarLane(const std::int16_t* weights, int blocks, int patch)
        : weights_(weights), bytes_(blocks * kPixelBlock), patch_(patch) {}

    void take(const std::uint8_t* corner, std::ptrdiff_t rowBytes) {
        target_ = corner;
        targetRow_ = rowBytes;
    }

    std::uint32_t distance(const std::uint8_t* corner, std::ptrdiff_t rowBytes,
                           std::int64_t bound) const {
        std::uint32_t sum = 0;
        for (int y = 0; y < patch_; ++y) {
            const std::uint8_t* a = target_ + y * targetRow_;
            const std::uint8_t* b = corner + y * rowBytes;
            for (int x = 0; x < patch_; ++x) {
                for (int i = 0; i < bytes_; ++i) {
                    const int difference = *a++ - *b++;
                    sum += static_cast<std::uint32_t>(difference * difference * weights_[i]);
                }
            }
            if (sum >= bound) break;
        }
        return sum;
    }

 private:
    const std::int16_t* weights_;
    const int bytes_, patch_;
    const std::uint8_t* target_ = nullptr;
    std::ptrdiff_t targetRow_ = 0;
};

}  // namespace

const Kernels* scalarKernels() {
    static const Kernels all{"scalar", sweepWith<ScalarLane>, measureWith<ScalarLane>};
    return &all;
}

}  // namespace ebsynth
