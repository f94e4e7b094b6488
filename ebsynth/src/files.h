// Files: images in, PNG out, fields and error maps. What is written exists whole or not at all.
#pragma once

#include <string>
#include <vector>

#include "field.h"
#include "image.h"

namespace ebsynth {

// Reads PNG, JPEG, BMP, TGA or PNM as RGBA, whatever its own channels. Throws InputError.
Image readImage(const std::string& path);

// Channels that an RGBA image needs: 1 grey, 3 colour, one more where any alpha is below 255.
int neededChannels(const Image& rgba);

// The first of the grey or colour channels, and alpha, of an RGBA image.
Image withChannels(const Image& rgba, int channels);

// Throws InputError where it cannot be written.
void writePng(const std::string& path, const Image& image);
void writeErrors(const std::string& path, const std::vector<float>& errors);
void writeField(const std::string& path, const Field& field);

// Throws InputError where the folder of a file to be written is missing: known before the work.
void checkFolderOf(const std::string& path);

// A field for these sizes. Throws InputError where it is another's or points outside.
Field readField(const std::string& path, int width, int height, int sourceWidth,
                int sourceHeight);

}  // namespace ebsynth
