#include "image.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "errors.h"

namespace ebsynth {
namespace {

constexpr int kLargestFactor = 128;  // 255 * 128 is the largest product 16 bits hold
constexpr int kScales = 4096;

// Relative loss of weights rounded at a scale, weighted by themselves.
double roundingLoss(const std::vector<double>& weights, double scale) {
    double loss = 0;
    for (double weight : weights) {
        loss += std::fabs(std::round(weight * scale) / scale - weight);
    }
    return loss;
}

// Whether distances with weights rounded at a scale stay inside 31 bits.
bool sumsFit(const std::vector<double>& weights, double scale, double pixels) {
    double sum = 0;
    for (double weight : weights) sum += std::round(weight * scale);
    return sum * pixels <= 2147483647.0;
}

// The scale that loses least, among those that keep all sums inside 31 bits.
double bestScale(const std::vector<double>& weights, int patch) {
    const double largest = *std::max_element(weights.begin(), weights.end());
    if (largest <= 0) return 1;
    double sum = 0;
    for (double weight : weights) sum += weight;
    const double pixels = double(patch) * patch * 255.0 * 255.0;
    const double limit = std::min(kLargestFactor / largest, 2147483647.0 / (pixels * sum) * 0.99);
    double best = 0, bestLoss = 0;
    for (int step = kScales; step > kScales / 4; --step) {
        const double scale = limit * step / kScales;
        if (!sumsFit(weights, scale, pixels)) continue;
        const double loss = roundingLoss(weights, scale);
        if (best == 0 || loss < bestLoss * (1 - 1e-9)) {
            best = scale;
            bestLoss = loss;
        }
    }
    if (std::round(largest * best) < 1) {
        throw InputError(std::to_string(weights.size()) + " channels are too many for patches of " +
                         std::to_string(patch) + "; give fewer guides or a smaller -patchsize");
    }
    return best;
}

// An image's channels, rows first .. end - 1, into every pixel from byte `byte` on.
template <int Channels>
void packRowsOf(Packed& packed, const Image& image, int byte, int first, int end) {
    const std::uint8_t* from =
        image.pixels.data() + std::size_t(first) * std::size_t(image.width) * Channels;
    const int bytes = packed.pixelBytes;
    for (int y = first; y < end; ++y) {
        std::uint8_t* to = packed.at(0, y) + byte;
        for (int x = 0; x < image.width; ++x, to += bytes, from += Channels) {
            std::memcpy(to, from, Channels);
        }
    }
}

void packRows(Packed& packed, const Image& image, int byte, int first, int end) {
    if (image.channels == 1) return packRowsOf<1>(packed, image, byte, first, end);
    if (image.channels == 2) return packRowsOf<2>(packed, image, byte, first, end);
    if (image.channels == 3) return packRowsOf<3>(packed, image, byte, first, end);
    packRowsOf<4>(packed, image, byte, first, end);
}

constexpr int kOne = 1 << 12;  // in positions between pixels

void resampleRows(const Packed& full, Packed& small, int first, int end) {
    for (int y = first; y < end; ++y) {
        const std::int64_t sy = std::int64_t(y) * full.height * kOne / small.height;
        const int y0 = static_cast<int>(sy / kOne), fy = static_cast<int>(sy % kOne);
        const int y1 = std::min(y0 + 1, full.height - 1);
        for (int x = 0; x < small.width; ++x) {
            const std::int64_t sx = std::int64_t(x) * full.width * kOne / small.width;
            const int x0 = static_cast<int>(sx / kOne), fx = static_cast<int>(sx % kOne);
            const int x1 = std::min(x0 + 1, full.width - 1);
            const std::uint8_t *a = full.at(x0, y0), *b = full.at(x1, y0);
            const std::uint8_t *c = full.at(x0, y1), *d = full.at(x1, y1);
            std::uint8_t* to = small.at(x, y);
            for (int i = 0; i < full.pixelBytes; ++i) {
                const int top = a[i] * (kOne - fx) + b[i] * fx;
                const int low = c[i] * (kOne - fx) + d[i] * fx;
                const std::int64_t sum = std::int64_t(top) * (kOne - fy) + std::int64_t(low) * fy;
                to[i] = static_cast<std::uint8_t>((sum + kOne * kOne / 2) / (kOne * kOne));
            }
        }
    }
}

}  // namespace

void checkImageSize(int width, int height, const std::string& name) {
    if (width >= 1 && height >= 1 && width <= kLargestSide && height <= kLargestSide &&
        std::int64_t(width) * height <= kMostPixels) {
        return;
    }
    throw InputError(name + " is " + std::to_string(width) + "x" + std::to_string(height) +
                     "; give sides of 1 to " + std::to_string(kLargestSide) + " and up to " +
                     std::to_string(kMostPixels) + " pixels");
}

Packed::Packed(int w, int h, int border, int bytesOfPixel)
    : width(w), height(h), pad(border), stride(w + 2 * border), pixelBytes(bytesOfPixel),
      bytes(static_cast<std::size_t>(stride) * static_cast<std::size_t>(h + 2 * border) *
            static_cast<std::size_t>(bytesOfPixel)) {}

void Packed::repeatEdges() {
    const std::size_t size = static_cast<std::size_t>(pixelBytes);
    for (int y = 0; y < height; ++y) {
        for (int x = 1; x <= pad; ++x) {
            std::memcpy(at(-x, y), at(0, y), size);
            std::memcpy(at(width - 1 + x, y), at(width - 1, y), size);
        }
    }
    const std::size_t row = static_cast<std::size_t>(stride) * size;
    for (int y = 1; y <= pad; ++y) {
        std::memcpy(at(-pad, -y), at(-pad, 0), row);
        std::memcpy(at(-pad, height - 1 + y), at(-pad, height - 1), row);
    }
}

Layout makeLayout(const std::vector<int>& channels, const std::vector<double>& imageWeights,
                  int patch) {
    std::vector<double> weights;
    for (std::size_t image = 0; image < channels.size(); ++image) {
        const double each = imageWeights[image] / channels[image];
        weights.insert(weights.end(), static_cast<std::size_t>(channels[image]), each);
        if (image == 0) weights.resize(kStyleBytes, 0.0);
    }
    Layout layout;
    layout.channels = channels;
    layout.scale = bestScale(weights, patch);
    const int used = static_cast<int>(weights.size());
    layout.pixelBytes = (used + kPixelBlock - 1) / kPixelBlock * kPixelBlock;
    for (double weight : weights) {
        layout.weights.push_back(static_cast<std::int16_t>(std::lround(weight * layout.scale)));
    }
    layout.weights.resize(static_cast<std::size_t>(layout.pixelBytes), 0);
    return layout;
}

Packed packed(const std::vector<const Image*>& images, const Layout& layout, int pad,
              bool withStyle, Threads& threads) {
    const int width = images.front()->width, height = images.front()->height;
    Packed result(width, height, pad, layout.pixelBytes);
    threads.runRows(height, [&](int first, int end) {
        int byte = withStyle ? 0 : kStyleBytes;
        for (const Image* image : images) {
            packRows(result, *image, byte, first, end);
            byte = byte == 0 ? kStyleBytes : byte + image->channels;
        }
    });
    result.repeatEdges();
    return result;
}

Packed resampled(const Packed& full, int width, int height, Threads& threads) {
    Packed small(width, height, full.pad, full.pixelBytes);
    threads.runRows(height, [&](int first, int end) { resampleRows(full, small, first, end); });
    small.repeatEdges();
    return small;
}

}  // namespace ebsynth
