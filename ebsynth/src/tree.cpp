#include "tree.h"

#include <algorithm>
#include <numeric>

namespace ebsynth {
namespace {

constexpr std::size_t kMostNumbers = 1 << 24;  // of all patches; of a larger source every second
                                                // pixel of every second row is looked at, or fewer
constexpr std::size_t kSample = 64;  // patches that tell what varies most

}  // namespace

PatchTree::PatchTree(const Packed& source, const Layout& layout, int patch, const Kernels& kernels,
                     Threads& threads) {
    const int reach = patch / 2, bytes = source.pixelBytes;
    // What a squared difference of each number adds to a patch distance; the style, which a target
    // has only once it is painted, takes no part.
    double squares = 0;
    for (int i = -reach; i <= reach; ++i) squares += double(i) * i;
    std::vector<double> shares;
    for (double share : {1.0 / (patch * patch), 1.0 / (patch * squares), 1.0 / (patch * squares)}) {
        for (int i = 0; i < bytes; ++i) {
            shares.push_back(i < kStyleBytes ? 0 : share * layout.weights[std::size_t(i)]);
        }
    }
    const std::size_t size = std::size_t(kNumbers) * std::size_t(bytes);
    const Bounds bounds(source.width, source.height, patch);
    int spacing = 0;
    std::size_t columns = 0, rows = 0;
    do {
        ++spacing;
        columns = std::size_t((bounds.right - bounds.left) / spacing + 1);
        rows = std::size_t((bounds.bottom - bounds.top) / spacing + 1);
    } while (columns * rows * size > kMostNumbers);
    std::vector<std::int16_t> numbers(columns * rows * size);
    std::vector<std::uint8_t> sketches(numbers.size());
    threads.runRows(int(rows), [&](int first, int end) {
        for (int y = first; y < end; ++y) {
            const std::size_t at = std::size_t(y) * columns * size;
            kernels.describe({&source, layout.weights.data(), patch, bounds.left,
                              bounds.top + y * spacing, int(columns), spacing, &numbers[at],
                              &sketches[at]});
        }
    });
    std::vector<std::uint32_t> patches(columns * rows);
    std::iota(patches.begin(), patches.end(), 0u);
    while (((patches.size() - 1) >> depth_) + 1 > kMostOfLeaf) ++depth_;
    nodes_.resize(std::size_t(1) << depth_);
    begins_.assign((std::size_t(1) << depth_) + 1, std::int32_t(patches.size()));
    split(numbers, shares, patches, {0, patches.size(), 1});
    std::vector<std::int16_t>().swap(numbers);
    sketches_.reserve(sketches.size());
    for (const std::uint32_t one : patches) {
        places_.push_back(bounds.nearest(bounds.left + int(one % columns) * spacing,
                                         bounds.top + int(one / columns) * spacing));
        const auto sketch = sketches.begin() + std::ptrdiff_t(one * size);
        sketches_.insert(sketches_.end(), sketch, sketch + std::ptrdiff_t(size));
    }
}

void PatchTree::split(const std::vector<std::int16_t>& numbers, const std::vector<double>& shares,
                      std::vector<std::uint32_t>& patches, Part part) {
    const std::size_t leaves = std::size_t(1) << depth_;
    if (part.node >= leaves) {
        begins_[part.node - leaves] = std::int32_t(part.first);
        return;
    }
    const std::size_t size = shares.size(), all = part.end - part.first, half = all / 2;
    std::vector<float> sums(size), squares(size);
    const std::size_t step = std::max<std::size_t>(1, all / kSample);
    int count = 0;
    for (std::size_t i = part.first; i < part.end; i += step, ++count) {
        const std::int16_t* __restrict row = &numbers[patches[i] * size];
        float *__restrict sum = sums.data(), *__restrict square = squares.data();
        for (std::size_t k = 0; k < size; ++k) {
            const float number = row[k];
            sum[k] += number;
            square[k] += number * number;
        }
    }
    std::size_t chosen = kStyleBytes;
    double most = 0;
    for (std::size_t k = 0; k < size; ++k) {
        const double sum = double(sums[k]);
        const double varies = (count * double(squares[k]) - sum * sum) * shares[k];
        if (varies > most) {
            most = varies;
            chosen = k;
        }
    }
    std::vector<std::int16_t> values(all), ordered;
    for (std::size_t i = 0; i < all; ++i) {
        values[i] = numbers[patches[part.first + i] * size + chosen];
    }
    ordered = values;
    const auto middle = ordered.begin() + std::ptrdiff_t(half);
    std::nth_element(ordered.begin(), middle, ordered.end());
    const std::int16_t border = *middle;
    nodes_[part.node] = {static_cast<std::uint16_t>(chosen), border};
    // Of those at the border the first ones go to the first half, and all keep their order: so every
    // library's nth_element makes the same tree.
    std::ptrdiff_t ties = std::ptrdiff_t(half) -
                          std::count_if(ordered.begin(), middle,
                                        [&](std::int16_t value) { return value < border; });
    std::vector<std::uint32_t> second;
    second.reserve(all - half);
    std::size_t to = part.first;
    for (std::size_t i = 0; i < all; ++i) {
        const std::uint32_t one = patches[part.first + i];
        if (values[i] < border || (values[i] == border && ties-- > 0)) {
            patches[to++] = one;
        } else {
            second.push_back(one);
        }
    }
    std::copy(second.begin(), second.end(), patches.begin() + std::ptrdiff_t(to));
    split(numbers, shares, patches, {part.first, part.first + half, 2 * part.node});
    split(numbers, shares, patches, {part.first + half, part.end, 2 * part.node + 1});
}

}  // namespace ebsynth
