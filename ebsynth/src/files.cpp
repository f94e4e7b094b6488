#include "files.h"

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>

#include "errors.h"

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_ONLY_TGA
#define STBI_ONLY_PNM
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS 32767
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wsign-compare"
#endif
#include "../include/third_party/stb_image.h"
#include "../include/third_party/stb_image_write.h"
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace ebsynth {
namespace {

namespace fs = std::filesystem;

fs::path pathOf(const std::string& utf8) { return fs::u8path(utf8); }

std::vector<std::uint8_t> readBytes(const std::string& path) {
    std::error_code problem;
    const std::uintmax_t size = fs::file_size(pathOf(path), problem);
    std::ifstream file(pathOf(path), std::ios::binary);
    if (problem || !file) throw InputError(path + " cannot be read; check the path");
    if (size == 0) throw InputError(path + " is empty (0 bytes); make it again");
    if (size > std::uintmax_t(1) << 31) throw InputError(path + " is over 2 GiB; give a smaller one");
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size));
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
    if (file.gcount() != static_cast<std::streamsize>(size)) {
        throw InputError(path + " cannot be read to its end; copy it again");
    }
    return bytes;
}

// Writes under a temporary name and renames, so that nobody ever sees a part.
void writeBytes(const std::string& path, const std::vector<char>& bytes) {
    const fs::path target = pathOf(path);
    fs::path temporary = target;
    temporary += "." + std::to_string(std::random_device{}()) + ".tmp";
    std::error_code problem;
    {
        std::ofstream file(temporary, std::ios::binary);
        file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        file.close();
        if (file) fs::rename(temporary, target, problem);
        if (file && !problem) return;
    }
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw InputError(path + " cannot be written" +
                     (problem ? " (" + problem.message() + ")" : std::string()) +
                     "; check the folder, its rights and the room on the disk");
}

template <class T>
void append(std::vector<char>& bytes, const T* values, std::size_t count) {
    const char* from = reinterpret_cast<const char*>(values);
    bytes.insert(bytes.end(), from, from + count * sizeof(T));
}

void collect(void* context, void* data, int size) {
    append(*static_cast<std::vector<char>*>(context), static_cast<const char*>(data),
           static_cast<std::size_t>(size));
}

}  // namespace

Image readImage(const std::string& path) {
    const std::vector<std::uint8_t> bytes = readBytes(path);
    int width = 0, height = 0, channels = 0;
    const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
        stbi_load_from_memory(bytes.data(), static_cast<int>(bytes.size()), &width, &height,
                              &channels, STBI_rgb_alpha),
        stbi_image_free);
    if (!pixels) {
        const char* reason = stbi_failure_reason();
        throw InputError(path + " is no image this program reads (" +
                         (reason ? reason : "unknown format") + "); give a whole PNG");
    }
    if (width > kLargestSide || height > kLargestSide) {
        throw InputError(path + " is " + std::to_string(width) + "x" + std::to_string(height) +
                         "; sides may have up to " + std::to_string(kLargestSide) + " pixels");
    }
    Image image{width, height, 4, {}};
    const std::size_t size = std::size_t(width) * std::size_t(height) * 4;
    image.pixels.assign(pixels.get(), pixels.get() + size);
    return image;
}

int neededChannels(const Image& rgba) {
    bool grey = true, opaque = true;
    for (std::size_t i = 0; i < rgba.pixels.size(); i += 4) {
        const std::uint8_t* pixel = &rgba.pixels[i];
        grey = grey && pixel[0] == pixel[1] && pixel[1] == pixel[2];
        opaque = opaque && pixel[3] == 255;
    }
    return (grey ? 1 : 3) + (opaque ? 0 : 1);
}

Image withChannels(const Image& rgba, int channels) {
    static const int kChosen[5][4] = {{}, {0}, {0, 3}, {0, 1, 2}, {0, 1, 2, 3}};
    Image image{rgba.width, rgba.height, channels, {}};
    image.pixels.reserve(rgba.pixels.size() / 4 * std::size_t(channels));
    for (std::size_t i = 0; i < rgba.pixels.size(); i += 4) {
        for (int c = 0; c < channels; ++c) {
            image.pixels.push_back(rgba.pixels[i + std::size_t(kChosen[channels][c])]);
        }
    }
    return image;
}

void writePng(const std::string& path, const Image& image) {
    std::vector<char> bytes;
    if (!stbi_write_png_to_func(collect, &bytes, image.width, image.height, image.channels,
                                image.pixels.data(), image.width * image.channels)) {
        throw InputError(path + " cannot be encoded as PNG");
    }
    writeBytes(path, bytes);
}

void writeErrors(const std::string& path, const std::vector<float>& errors) {
    std::vector<char> bytes;
    const std::int64_t count = static_cast<std::int64_t>(errors.size());
    append(bytes, &count, 1);
    append(bytes, errors.data(), errors.size());
    writeBytes(path, bytes);
}

void writeField(const std::string& path, const Field& field) {
    std::vector<char> bytes;
    const std::int32_t header[4] = {field.width, field.height, field.sourceWidth,
                                    field.sourceHeight};
    append(bytes, header, 4);
    for (const Match& match : field.matches) {
        const std::int32_t place[2] = {match.x, match.y};
        append(bytes, place, 2);
    }
    writeBytes(path, bytes);
}

Field readField(const std::string& path, int width, int height, int sourceWidth, int sourceHeight,
                int patch) {
    const std::vector<std::uint8_t> bytes = readBytes(path);
    const std::size_t pixels = std::size_t(width) * std::size_t(height);
    std::int32_t header[4] = {0, 0, 0, 0};
    if (bytes.size() >= sizeof header) std::memcpy(header, bytes.data(), sizeof header);
    if (bytes.size() != sizeof header + pixels * 8 || header[0] != width || header[1] != height ||
        header[2] != sourceWidth || header[3] != sourceHeight) {
        throw InputError(path + " is no field of " + std::to_string(width) + "x" +
                         std::to_string(height) + " pixels into a source of " +
                         std::to_string(sourceWidth) + "x" + std::to_string(sourceHeight) +
                         "; give one written by -nnf for these sizes");
    }
    Field field(width, height, sourceWidth, sourceHeight);
    const Bounds bounds(sourceWidth, sourceHeight, patch);
    const std::uint8_t* from = bytes.data() + sizeof header;
    for (Match& match : field.matches) {
        std::int32_t place[2];
        std::memcpy(place, from, sizeof place);
        from += sizeof place;
        if (place[0] < 0 || place[1] < 0 || place[0] >= sourceWidth || place[1] >= sourceHeight) {
            throw InputError(path + " holds a match at " + std::to_string(place[0]) + ", " +
                             std::to_string(place[1]) + ", outside the source; make it again");
        }
        match = bounds.nearest(place[0], place[1]);
    }
    return field;
}

}  // namespace ebsynth
