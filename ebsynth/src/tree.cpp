#include "tree.h"

#include <algorithm>

#include "kernels.h"

namespace ebsynth {
namespace {

constexpr std::int64_t kMostNumbers = 1 << 24;  // of all patches; of a larger source every second
                                                // pixel of every second row is looked at, or fewer
constexpr int kSample = 64;   // patches that tell what varies most
constexpr int kNumbers = 3;   // of a channel: sum, slope along the row, slope along the column
constexpr int kLargestSum = 32767;

}  // namespace

PatchTree::PatchTree(const Packed& source, const Layout& layout, int patch, Threads& threads)
    : patch_(patch), channels_(layout.pixelBytes - kStyleBytes) {
    const int reach = patch / 2, largest = 255 * patch * std::max(patch, reach * (reach + 1) / 2);
    while (largest >> shift_ > kLargestSum) ++shift_;
    // What a squared difference of each number adds to a patch distance.
    double squares = 0;
    for (int i = -reach; i <= reach; ++i) squares += double(i) * i;
    std::vector<double> shares;
    for (double share : {1.0 / (patch * patch), 1.0 / (patch * squares), 1.0 / (patch * squares)}) {
        for (int i = 0; i < channels_; ++i) {
            shares.push_back(share * layout.weights[std::size_t(kStyleBytes + i)]);
        }
    }
    const std::size_t size = std::size_t(kNumbers) * std::size_t(channels_);
    const Bounds bounds(source.width, source.height, patch);
    int spacing = 0, columns = 0, rows = 0;
    do {
        ++spacing;
        columns = (bounds.right - bounds.left) / spacing + 1;
        rows = (bounds.bottom - bounds.top) / spacing + 1;
    } while (std::int64_t(columns) * rows * std::int64_t(size) > kMostNumbers);
    std::vector<Patch> patches(std::size_t(columns) * std::size_t(rows));
    std::vector<std::int16_t> numbers(patches.size() * size);
    threads.runRows(rows, [&](int first, int end) {
        Row row;
        for (int y = first; y < end; ++y) {
            const int sourceY = bounds.top + y * spacing;
            describeRow(source, sourceY, row);
            for (int x = 0; x < columns; ++x) {
                const int sourceX = bounds.left + x * spacing;
                const std::size_t i = std::size_t(y) * std::size_t(columns) + std::size_t(x);
                patches[i] = {{static_cast<std::uint16_t>(sourceX),
                               static_cast<std::uint16_t>(sourceY)},
                              static_cast<std::int32_t>(i)};
                std::copy_n(&row.numbers[std::size_t(sourceX) * size], size, &numbers[i * size]);
            }
        }
    });
    const int count = static_cast<int>(patches.size());
    while (((count - 1) >> depth_) + 1 > kMostOfLeaf) ++depth_;
    nodes_.resize(std::size_t(1) << depth_);
    begins_.assign((std::size_t(1) << depth_) + 1, count);
    split(numbers, shares, patches, {0, count, 1});
    means_.resize(patches.size() * std::size_t(layout.pixelBytes));
    std::uint8_t* mean = means_.data() + kStyleBytes;
    for (const Patch& one : patches) {
        places_.push_back(one.place);
        const std::int16_t* sums = &numbers[std::size_t(one.row) * size];
        for (int i = 0; i < channels_; ++i) {
            mean[i] = static_cast<std::uint8_t>((sums[i] << shift_) / (patch * patch));
        }
        mean += layout.pixelBytes;
    }
}

// Sums over the patch of every pixel of a row: along the columns first, then along the row, where
// those of a pixel follow from those of the pixel before.
void PatchTree::describeRow(const Packed& image, int y, Row& row) const {
    const int reach = patch_ / 2, bytes = image.pixelBytes, all = (image.width + 2 * reach) * bytes;
    row.sums.assign(static_cast<std::size_t>(all), 0);
    row.slopes.assign(static_cast<std::size_t>(all), 0);
    std::int16_t *__restrict sums = row.sums.data(), *__restrict slopes = row.slopes.data();
    for (int dy = -reach; dy <= reach; ++dy) {
        const std::uint8_t* __restrict from = image.at(-reach, y + dy);
        const std::int16_t factor = static_cast<std::int16_t>(dy);
        for (int i = 0; i < all; ++i) {
            sums[i] = static_cast<std::int16_t>(sums[i] + from[i]);
            slopes[i] = static_cast<std::int16_t>(slopes[i] + factor * from[i]);
        }
    }
    const std::size_t size = std::size_t(kNumbers) * std::size_t(channels_);
    row.numbers.resize(std::size_t(image.width) * size);
    std::vector<std::int32_t> totals(size);
    std::int32_t* __restrict sum = totals.data();
    std::int32_t *__restrict across = sum + channels_, *__restrict down = across + channels_;
    for (int dx = -reach; dx <= reach; ++dx) {
        const std::ptrdiff_t at = std::ptrdiff_t(dx + reach) * bytes + kStyleBytes;
        for (int i = 0; i < channels_; ++i) {
            sum[i] += sums[at + i];
            across[i] += dx * sums[at + i];
            down[i] += slopes[at + i];
        }
    }
    std::int16_t* __restrict to = row.numbers.data();
    for (int x = 0; x < image.width; ++x) {
        for (std::size_t i = 0; i < size; ++i) {
            *to++ = static_cast<std::int16_t>(totals[i] >> shift_);
        }
        if (x + 1 == image.width) break;
        const std::ptrdiff_t old = std::ptrdiff_t(x) * bytes + kStyleBytes;
        const std::ptrdiff_t fresh = old + std::ptrdiff_t(patch_) * bytes;
        for (int i = 0; i < channels_; ++i) {
            const int gone = sums[old + i], come = sums[fresh + i];
            across[i] += reach * come + (reach + 1) * gone - sum[i];
            sum[i] += come - gone;
            down[i] += slopes[fresh + i] - slopes[old + i];
        }
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
    const std::size_t size = std::size_t(kNumbers) * std::size_t(channels_);
    std::vector<std::int64_t> sums(size), squares(size);
    const int step = std::max(1, (part.end - part.first) / kSample);
    std::int64_t count = 0;
    for (int i = part.first; i < part.end; i += step, ++count) {
        const std::int16_t* row = &numbers[std::size_t(patches[std::size_t(i)].row) * size];
        for (std::size_t k = 0; k < size; ++k) {
            sums[k] += row[k];
            squares[k] += std::int64_t(row[k]) * row[k];
        }
    }
    std::size_t chosen = 0;
    double most = -1;
    for (std::size_t k = 0; k < size; ++k) {
        const double varies = double(count * squares[k] - sums[k] * sums[k]) * shares[k];
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
    nodes_[std::size_t(part.node)] = {static_cast<std::int16_t>(chosen),
                                      number(patches[std::size_t(middle)])};
    split(numbers, shares, patches, {part.first, middle, 2 * part.node});
    split(numbers, shares, patches, {middle, part.end, 2 * part.node + 1});
}

std::vector<std::int32_t> PatchTree::leavesOf(const Packed& target, Threads& threads) const {
    std::vector<std::int32_t> leaves(std::size_t(target.width) * std::size_t(target.height));
    threads.runRows(target.height, [&](int first, int end) {
        Row row;
        const std::size_t size = std::size_t(kNumbers) * std::size_t(channels_);
        std::int32_t* leaf = &leaves[std::size_t(first) * std::size_t(target.width)];
        for (int y = first; y < end; ++y) {
            describeRow(target, y, row);
            for (std::size_t at = 0; at < row.numbers.size(); at += size) {
                const std::int16_t* numbers = &row.numbers[at];
                std::int32_t node = 1;
                for (int i = 0; i < depth_; ++i) {
                    const Node& one = nodes_[std::size_t(node)];
                    node = 2 * node + (numbers[one.number] >= one.border);
                }
                *leaf++ = node - (1 << depth_);
            }
        }
    });
    return leaves;
}

}  // namespace ebsynth
