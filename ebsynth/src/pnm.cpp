#include "pnm.h"

#include <cctype>

#include "errors.h"

namespace ebsynth {
namespace {

constexpr int kTooLarge = 1 << 20;  // numbers of the header are not followed any further

// The header's numbers, which blanks and comments separate.
class Header {
 public:
    explicit Header(const std::vector<std::uint8_t>& bytes) : bytes_(bytes) {}

    // The next number; -1 where there is none.
    int number() {
        skipBlanks();
        if (!digit()) return -1;
        int value = 0;
        for (; digit(); ++at_) {
            if (value < kTooLarge) value = value * 10 + (bytes_[at_] - '0');
        }
        return value;
    }

    // Where the pixels begin, behind the one blank that ends the header.
    std::size_t pixels() const { return at_ + 1; }

 private:
    bool digit() const { return at_ < bytes_.size() && std::isdigit(bytes_[at_]); }

    void skipBlanks() {
        bool comment = false;
        for (; at_ < bytes_.size(); ++at_) {
            const std::uint8_t letter = bytes_[at_];
            if (letter == '#') comment = true;
            if (letter == '\n' || letter == '\r') comment = false;
            if (!comment && !std::isspace(letter)) return;
        }
    }

    const std::vector<std::uint8_t>& bytes_;
    std::size_t at_ = 2;
};

// Brings a value to 0 .. 255; of 16 bits the upper 8 are used.
std::uint8_t scaled(int value, int largest) {
    if (largest == 65535) return static_cast<std::uint8_t>(value >> 8);
    if (value >= largest) return 255;
    return static_cast<std::uint8_t>((value * 255 + largest / 2) / largest);
}

}  // namespace

bool isPnm(const std::vector<std::uint8_t>& bytes) {
    return bytes.size() > 2 && bytes[0] == 'P' && (bytes[1] == '5' || bytes[1] == '6') &&
           (std::isspace(bytes[2]) || bytes[2] == '#');
}

Image decodePnm(const std::vector<std::uint8_t>& bytes, const std::string& name) {
    Header header(bytes);
    const int width = header.number(), height = header.number(), largest = header.number();
    if (width < 1 || height < 1 || largest < 1 || largest > 65535) {
        throw InputError(name + " has a broken PNM header; give a whole PNG");
    }
    checkImageSize(width, height, name);
    const int channels = bytes[1] == '6' ? 3 : 1, depth = largest > 255 ? 2 : 1;
    const std::size_t pixels = std::size_t(width) * std::size_t(height);
    const std::size_t wanted = pixels * std::size_t(channels * depth);
    if (header.pixels() > bytes.size() || bytes.size() - header.pixels() < wanted) {
        throw InputError(name + " ends in the middle of the picture; copy or make it again");
    }
    const std::uint8_t* from = bytes.data() + header.pixels();
    Image image{width, height, 4, std::vector<std::uint8_t>(pixels * 4, 255)};
    for (std::size_t i = 0; i < pixels; ++i) {
        for (int c = 0; c < 3; ++c) {
            const std::uint8_t* at = from + (channels == 3 ? c : 0) * depth;
            const int value = depth == 2 ? at[0] * 256 + at[1] : at[0];
            image.pixels[i * 4 + std::size_t(c)] = scaled(value, largest);
        }
        from += channels * depth;
    }
    return image;
}

}  // namespace ebsynth
