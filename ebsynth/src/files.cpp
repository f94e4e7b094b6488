#include "files.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <random>
#include <stdexcept>

#include "decode.h"
#include "errors.h"

namespace ebsynth {
namespace {

// The encoder does not expect that memory ends.
void* checkedBlock(void* block) {
    if (!block) throw std::bad_alloc();
    return block;
}

}  // namespace
}  // namespace ebsynth

#define STBIW_MALLOC(size) ebsynth::checkedBlock(std::malloc(size))
#define STBIW_REALLOC(block, size) ebsynth::checkedBlock(std::realloc(block, size))
#define STBIW_FREE(block) std::free(block)
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include <third_party/stb_image_write.h>

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
    if (size > std::uintmax_t(1) << 30) throw InputError(path + " is over 1 GiB; give a smaller one");
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size));
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
    if (file.gcount() != static_cast<std::streamsize>(size)) {
        throw InputError(path + " cannot be read to its end; copy it again");
    }
    return bytes;
}

[[noreturn]] void cannotWrite(const std::string& path, const std::error_code& problem) {
    throw InputError(path + " cannot be written" +
                     (problem ? " (" + problem.message() + ")" : std::string()) +
                     "; check the folder, its rights and the room on the disk");
}

bool written(const fs::path& path, const std::vector<char>& bytes) {
    std::ofstream file(path, std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    return bool(file);
}

// What a path stands for: a symbolic link is followed, whether it leads to a file or not yet.
fs::path targetOf(const std::string& path) {
    constexpr int kMostLinks = 40;  // as many as Linux follows
    fs::path target = pathOf(path);
    std::error_code problem;
    for (int links = 0; links < kMostLinks; ++links) {
        if (!fs::is_symlink(fs::symlink_status(target, problem))) break;
        const fs::path next = fs::read_symlink(target, problem);
        if (problem) break;
        target = target.parent_path() / next;
    }
    return target;
}

// Writes under a temporary name and renames, so that nobody ever sees a part. A pipe or a device
// is written to, not replaced.
void writeBytes(const std::string& path, const std::vector<char>& bytes) {
    const fs::path target = targetOf(path);
    std::error_code problem, ignored;
    const fs::file_status before = fs::status(target, ignored);
    if (fs::is_other(before)) {
        if (!written(target, bytes)) cannotWrite(path, problem);
        return;
    }
    fs::path temporary = target;
    temporary += "." + std::to_string(std::random_device{}()) + ".tmp";
    if (written(temporary, bytes)) {
        fs::rename(temporary, target, problem);
        if (!problem) return;
    }
    fs::remove(temporary, ignored);
    cannotWrite(path, problem);
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

Image readImage(const std::string& path) { return decodeImage(readBytes(path), path); }

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

void checkFolderOf(const std::string& path) {
    std::error_code problem;
    const fs::path target = targetOf(path), folder = fs::absolute(target, problem).parent_path();
    if (!fs::is_directory(folder, problem)) {
        throw InputError(path + " cannot be written; its folder does not exist, make it first");
    }
    if (fs::is_directory(target, problem)) {
        throw InputError(path + " is a folder; give the name of a file to write");
    }
}

void writePng(const std::string& path, const Image& image) {
    std::vector<char> bytes;
    stbi_write_png_compression_level = 5;  // a third less time than the default, 2 % more bytes
    stbi_write_force_png_filter = 2;       // difference to the row above
    if (!stbi_write_png_to_func(collect, &bytes, image.width, image.height, image.channels,
                                image.pixels.data(), image.width * image.channels)) {
        throw std::logic_error(path + " cannot be encoded as PNG");
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

Field readField(const std::string& path, int width, int height, int sourceWidth,
                int sourceHeight) {
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
    const std::uint8_t* from = bytes.data() + sizeof header;
    for (Match& match : field.matches) {
        std::int32_t place[2];
        std::memcpy(place, from, sizeof place);
        from += sizeof place;
        if (place[0] < 0 || place[1] < 0 || place[0] >= sourceWidth || place[1] >= sourceHeight) {
            throw InputError(path + " holds a match at " + std::to_string(place[0]) + ", " +
                             std::to_string(place[1]) + ", outside the source; make it again");
        }
        match = {static_cast<std::uint16_t>(place[0]), static_cast<std::uint16_t>(place[1])};
    }
    return field;
}

}  // namespace ebsynth
