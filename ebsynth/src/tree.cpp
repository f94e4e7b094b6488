#include "tree.h"

#include <algorithm>

namespace ebsynth {
namespace {

constexpr std::int64_t kMostNumbers = 1 << 24;  // of all patches; of a larger source every second
                                                // pixel of every second row is looked at, or fewer
constexpr int kSample = 64;  // patches that tell what varies most

}  // namespace

PatchTree::PatchTree(const Packed& source, const Layout& layout, int patch, Threads& threads) {
    const int reach = patch / 2, bytes = source.pixelBytes;
    const Scales scales(patch);
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
    int spacing = 0, columns = 0, rows = 0;
    do {
        ++spacing;
        columns = (bounds.right - bounds.left) / spacing + 1;
        rows = (bounds.bottom - bounds.top) / spacing + 1;
    } while (std::int64_t(columns) * rows * std::int64_t(size) > kMostNumbers);
    std::vector<Patch> patches(std::size_t(columns) * std::size_t(rows));
    std::vector<std::int16_t> numbers(patches.size() * size);
    std::vector<std::uint8_t> sketches(patches.size() * size);
    threads.runRows(rows, [&](int first, int end) {
        std::vector<std::int32_t> totals(size);
        for (int y = first; y < end; ++y) {
            const int sourceY = bounds.top + y * spacing;
            for (int x = 0; x < columns; ++x) {
                const int sourceX = bounds.left + x * spacing;
                const std::size_t i = std::size_t(y) * std::size_t(columns) + std::size_t(x);
                patches[i] = {{static_cast<std::uint16_t>(sourceX),
                               static_cast<std::uint16_t>(sourceY)},
                              static_cast<std::int32_t>(i)};
                describe(source.at(sourceX - reach, sourceY - reach),
                         std::ptrdiff_t(source.stride) * bytes, patch, bytes, totals.data());
                const std::int32_t* total = totals.data();
                std::int16_t* number = &numbers[i * size];
                std::uint8_t* sketch = &sketches[i * size];
                for (std::size_t k = 0; k < size; ++k) number[k] = scales.number(total[k]);
                for (int k = 0; k < bytes; ++k) sketch[k] = scales.mean(total[k]);
                for (std::size_t k = std::size_t(bytes); k < size; ++k) {
                    sketch[k] = scales.slope(total[k]);
                }
            }
        }
    });
    const int count = static_cast<int>(patches.size());
    while (((count - 1) >> depth_) + 1 > kMostOfLeaf) ++depth_;
    nodes_.resize(std::size_t(1) << depth_);
    begins_.assign((std::size_t(1) << depth_) + 1, count);
    split(numbers, shares, patches, {0, count, 1});
    std::vector<std::int16_t>().swap(numbers);
    sketches_.reserve(sketches.size());
    for (const Patch& one : patches) {
        places_.push_back(one.place);
        const auto sketch = sketches.begin() + std::ptrdiff_t(one.row) * std::ptrdiff_t(size);
        sketches_.insert(sketches_.end(), sketch, sketch + std::ptrdiff_t(size));
    }
}

void PatchTree::split(const std::vector<std::int16_t>& numbers, const std::vector<double>& shares,
                      std::vector<Patch>& patches, Part part) {
    const int leaves = 1 << depth_;
    const auto begin = patches.begin();
    if (part.node >= leaves) {
        begins_[std::size_t(part.node - leaves)] = part.first;
        std::sort(begin + part.first, begin + part.end,
                  [](const Patch& a, const Patch& b) { return a.row < b.row; });
        return;
    }
    const std::size_t size = shares.size();
    std::vector<float> sums(size), squares(size);
    const int step = std::max(1, (part.end - part.first) / kSample);
    int count = 0;
    for (int i = part.first; i < part.end; i += step, ++count) {
        const std::int16_t* __restrict row = &numbers[std::size_t(patches[std::size_t(i)].row) * size];
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
    // Ties are decided by the place, so that every library makes the same halves.
    const auto number = [&](const Patch& one) {
        return numbers[std::size_t(one.row) * size + chosen];
    };
    const int middle = part.first + (part.end - part.first) / 2;
    std::nth_element(begin + part.first, begin + middle, begin + part.end,
                     [&](const Patch& a, const Patch& b) {
                         return number(a) != number(b) ? number(a) < number(b) : a.row < b.row;
                     });
    nodes_[std::size_t(part.node)] = {static_cast<std::uint16_t>(chosen),
                                      number(patches[std::size_t(middle)])};
    split(numbers, shares, patches, {part.first, middle, 2 * part.node});
    split(numbers, shares, patches, {middle, part.end, 2 * part.node + 1});
}

}  // namespace ebsynth
