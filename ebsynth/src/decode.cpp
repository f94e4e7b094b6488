#include "decode.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "errors.h"
#include "pnm.h"

namespace ebsynth {
namespace {

constexpr std::size_t kSmallBlock = std::size_t(1) << 20;
constexpr std::size_t kLargestBlock = std::size_t(1) << 30;

// A few bytes of a compressed file may ask for gigabytes: the codec gets blocks up to this size.
thread_local std::size_t largestBlock = kSmallBlock;
thread_local bool memoryEnded = false;  // with a block that it might have got

// Zeroed, so that what a broken file leaves out is the same every time.
void* blockOf(std::size_t size) {
    if (size > largestBlock) return nullptr;
    void* block = std::calloc(1, size);
    if (!block) memoryEnded = true;
    return block;
}

void* resizedBlock(void* block, std::size_t before, std::size_t size) {
    if (size > largestBlock) return nullptr;
    void* resized = std::realloc(block, size);
    if (!resized) memoryEnded = true;
    if (resized && size > before) {
        std::memset(static_cast<char*>(resized) + before, 0, size - before);
    }
    return resized;
}

}  // namespace
}  // namespace ebsynth

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_ONLY_TGA
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MALLOC(size) ebsynth::blockOf(size)
#define STBI_REALLOC_SIZED(block, before, size) ebsynth::resizedBlock(block, before, size)
#define STBI_FREE(block) std::free(block)
#include <third_party/stb_image.h>

namespace ebsynth {
namespace {

// Hands bytes to the codec, and sees whether it wanted more than there are.
struct Stream {
    const std::uint8_t* next;
    std::size_t left;
    const char* buffer = nullptr;  // the codec's own, which it fills ahead of its wants
    bool ended = false;

    int read(char* to, int size) {
        if (!buffer) buffer = to;
        const std::size_t count = std::min(left, static_cast<std::size_t>(size));
        if (count) std::memcpy(to, next, count);
        next += count;
        left -= count;
        if (count == 0 || (to != buffer && count < static_cast<std::size_t>(size))) ended = true;
        return static_cast<int>(count);
    }

    void skip(int size) {
        const std::size_t count = std::min(left, static_cast<std::size_t>(std::max(size, 0)));
        next += count;
        left -= count;
    }
};

const stbi_io_callbacks kCallbacks = {
    [](void* user, char* to, int size) { return static_cast<Stream*>(user)->read(to, size); },
    [](void* user, int size) { static_cast<Stream*>(user)->skip(size); },
    [](void* user) { return static_cast<Stream*>(user)->left == 0 ? 1 : 0; },
};

[[noreturn]] void refuse(const std::string& name) {
    if (memoryEnded) throw std::bad_alloc();
    const char* reason = stbi_failure_reason();
    throw InputError(name + " is no image this program reads (" +
                     (reason ? reason : "unknown format") + "); give a whole PNG");
}

bool begins(const std::vector<std::uint8_t>& bytes, const char* letters, std::size_t count) {
    return bytes.size() >= count && std::memcmp(bytes.data(), letters, count) == 0;
}

InputError cutShort(const std::string& name) {
    return InputError(name + " ends in the middle of the picture; copy or make it again");
}

int bigEndian(const std::uint8_t* at) {
    const std::uint32_t value = std::uint32_t(at[0]) << 24 | std::uint32_t(at[1]) << 16 |
                                std::uint32_t(at[2]) << 8 | at[3];
    return static_cast<int>(std::min(value, std::uint32_t(0x7FFFFFFF)));
}

bool isPng(const std::vector<std::uint8_t>& bytes) {
    return begins(bytes, "\x89PNG\r\n\x1a\n", 8);
}

// How many pixels a byte of a file can stand for.
std::size_t mostPixelsOfByte(const std::vector<std::uint8_t>& bytes) {
    if (isPng(bytes)) return 8 * 1032;               // a bit each, packed as far as deflate goes
    if (begins(bytes, "\xFF\xD8", 2)) return 8 * 64;  // a bit or more for a block of 8 by 8
    return 64;                                       // TGA: a run of 128 takes two bytes or more
}

// Refuses what is too large, or cannot be whole, before any memory or time is spent on it.
void checkClaims(const std::vector<std::uint8_t>& bytes, const std::string& name) {
    if (isPng(bytes) && bytes.size() >= 24) {
        // The codec would call it an unknown type.
        checkImageSize(bigEndian(&bytes[16]), bigEndian(&bytes[20]), name);
    }
    int width = 0, height = 0, channels = 0;
    largestBlock = kSmallBlock;
    memoryEnded = false;
    if (!stbi_info_from_memory(bytes.data(), static_cast<int>(bytes.size()), &width, &height,
                               &channels)) {
        refuse(name);
    }
    checkImageSize(width, height, name);
    const std::size_t pixels = std::size_t(width) * std::size_t(height);
    if (pixels / mostPixelsOfByte(bytes) > bytes.size()) throw cutShort(name);
    // 16 bits of 4 channels take 8 bytes a pixel, a growing buffer up to twice that; JPEG rounds
    // sides up to whole blocks.
    const std::size_t rounded = std::size_t(width + 64) * std::size_t(height + 64);
    largestBlock = std::min(kSmallBlock + 2 * bytes.size() + 32 * rounded, kLargestBlock);
}

}  // namespace

Image decodeImage(const std::vector<std::uint8_t>& bytes, const std::string& name) {
    if (isPnm(bytes)) return decodePnm(bytes, name);
    checkClaims(bytes, name);
    int width = 0, height = 0, channels = 0;
    Stream stream{bytes.data(), bytes.size()};
    const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
        stbi_load_from_callbacks(&kCallbacks, &stream, &width, &height, &channels, STBI_rgb_alpha),
        stbi_image_free);
    if (stream.ended) throw cutShort(name);
    if (!pixels) refuse(name);
    checkImageSize(width, height, name);
    Image image{width, height, 4, {}};
    const std::size_t size = std::size_t(width) * std::size_t(height) * 4;
    image.pixels.assign(pixels.get(), pixels.get() + size);
    return image;
}

}  // namespace ebsynth
