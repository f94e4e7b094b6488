// Plain arithmetic: the reference for the other instruction sets, and for processors without any.
#include "sweep.inl"

namespace ebsynth {
namespace {

struct ScalarBlock {
    using Sum = std::uint32_t;

    static Sum plus(Sum sum, const std::uint8_t* target, const std::uint8_t* source,
                    const std::int16_t* weights) {
        for (int i = 0; i < kPixelBlock; ++i) {
            const int difference = target[i] - source[i];
            sum += static_cast<std::uint32_t>(difference * difference * weights[i]);
        }
        return sum;
    }

    static std::uint32_t total(Sum sum) { return sum; }
};

template <int Patch, int Blocks>
using ScalarLane = RowLane<ScalarBlock, Patch, Blocks>;

}  // namespace

const Kernels* scalarKernels() {
    static const Kernels all{"scalar", sweepWith<ScalarLane>, measureWith<ScalarLane>,
                             addStyleWith<ScalarLane>, describeWith<ScalarLane>};
    return &all;
}

}  // namespace ebsynth
