// Images as bytes, and the pixels of all images of one side packed together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "threads.h"

namespace ebsynth {

constexpr int kLargestSide = 32767;
constexpr std::int64_t kMostPixels = std::int64_t(1) << 26;  // 2^28 bytes of RGBA
constexpr int kStyleBytes = 4;   // a packed pixel begins with the style, whatever its channels
constexpr int kPixelBlock = 16;  // packed pixels are whole numbers of blocks, for SIMD

// 8-bit image, row by row, 1 to 4 interleaved channels (grey, grey + alpha, RGB, RGBA).
struct Image {
    int width = 0;
    int height = 0;
    int channels = 0;
    std::vector<std::uint8_t> pixels;
};

// What the channels of one side (source or target) look like when packed.
struct Layout {
    std::vector<int> channels;         // of the style, then of every guide
    std::vector<std::int16_t> weights;  // one a byte of a pixel, in 1 / scale
    double scale = 1;                  // integer distance = scale * real distance
    int pixelBytes = 0;

    int blocks() const { return pixelBytes / kPixelBlock; }
};

// Style and guides of one side, pixel by pixel, with a border that repeats the edge.
struct Packed {
    int width = 0;
    int height = 0;
    int pad = 0;
    int stride = 0;  // pixels in a row, borders included
    int pixelBytes = 0;
    std::vector<std::uint8_t> bytes;

    Packed() = default;
    Packed(int width, int height, int pad, int pixelBytes);

    // Pixel (x, y); both may lie up to `pad` outside.
    std::uint8_t* at(int x, int y) {
        return bytes.data() + offset(x, y) * static_cast<std::size_t>(pixelBytes);
    }
    const std::uint8_t* at(int x, int y) const {
        return bytes.data() + offset(x, y) * static_cast<std::size_t>(pixelBytes);
    }
    std::size_t offset(int x, int y) const {
        return static_cast<std::size_t>(y + pad) * static_cast<std::size_t>(stride) +
               static_cast<std::size_t>(x + pad);
    }
    // Copies the edge into the border.
    void repeatEdges();
};

// Throws InputError where there are no pixels, or more than this program takes; `name` is what the
// message calls the image.
void checkImageSize(int width, int height, const std::string& name);

// Weights as small integers: the scale is chosen so that they lose least.
Layout makeLayout(const std::vector<int>& channels, const std::vector<double>& imageWeights,
                  int patch);

// Images of one size packed together, the style first if there is one; without it, its bytes stay 0.
Packed packed(const std::vector<const Image*>& images, const Layout& layout, int pad,
              bool withStyle, Threads& threads);

// The packed image at another size, sampled bilinearly.
Packed resampled(const Packed& full, int width, int height, Threads& threads);

}  // namespace ebsynth
