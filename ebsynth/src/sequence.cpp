// Frames by pipe: one process paints a whole segment (../README.md, "Sequences by pipe").
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>

#include "errors.h"
#include "run.h"

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#endif

namespace ebsynth {
namespace {

constexpr std::uint32_t kProtocol = 1;
constexpr std::uint32_t kMostGuides = 64;
constexpr std::uint32_t kWithFlow = 1, kWantsField = 2, kAnew = 4, kWithTrack = 8;

// Bytes as they are; and a reader that is gone makes writing fail, not this program vanish.
void preparePipes() {
#if defined(_WIN32)
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
#else
    std::signal(SIGPIPE, SIG_IGN);
#endif
}

void read(void* to, std::size_t bytes, const char* what) {
    if (std::fread(to, 1, bytes, stdin) != bytes) {
        throw InputError(std::string("stdin ends in the middle of ") + what +
                         "; send whole messages");
    }
}

template <class T>
T value(const char* what) {
    T value;
    read(&value, sizeof value, what);
    return value;
}

// Four letters that begin a message; empty at the end of stdin.
std::string tag() {
    char letters[4];
    const std::size_t count = std::fread(letters, 1, sizeof letters, stdin);
    if (count != 0 && count != sizeof letters) {
        throw InputError("stdin ends in the middle of a message; send whole messages");
    }
    return std::string(letters, count);
}

int side(const char* what) {
    const std::uint32_t side = value<std::uint32_t>(what);
    if (side < 1 || side > std::uint32_t(kLargestSide)) {
        throw InputError(std::string(what) + " is " + std::to_string(side) + "; give 1 to " +
                         std::to_string(kLargestSide));
    }
    return static_cast<int>(side);
}

int channelCount(const char* what) {
    const std::uint32_t count = value<std::uint32_t>(what);
    if (count < 1 || count > 4) {
        throw InputError(std::string(what) + " is " + std::to_string(count) + "; give 1 to 4");
    }
    return static_cast<int>(count);
}

double weight(double standard) {
    const float given = value<float>("a weight");
    if (!(given < 0) && !usableWeight(given)) {
        throw InputError("a weight is " + std::to_string(given) +
                         "; give 0, or 0.000001 to 1000000, or less than 0 for the default");
    }
    return given < 0 ? standard : given;
}

Image image(int width, int height, int channels, const char* what) {
    checkImageSize(width, height, what);
    Image image{width, height, channels, {}};
    image.pixels.resize(std::size_t(width) * std::size_t(height) * std::size_t(channels));
    read(image.pixels.data(), image.pixels.size(), what);
    return image;
}

void write(const void* from, std::size_t bytes) {
    if (std::fwrite(from, 1, bytes, stdout) != bytes) {
        throw InputError("stdout cannot be written; the reader is gone");
    }
}

// A segment: the style, and what all its frames share.
class Segment {
 public:
    explicit Segment(const Options& options) : threads_(options.threads) {
        if (value<std::uint32_t>("the version") != kProtocol) {
            throw InputError("the version of the messages is not 1; use a matching program");
        }
        const int width = side("the style's width"), height = side("the style's height");
        styleWidth_ = width;
        styleHeight_ = height;
        const int channels = channelCount("the style's channels");
        std::vector<double> weights{weight(1.0)};
        const Image style = image(width, height, channels, "the style");
        const std::uint32_t guides = value<std::uint32_t>("the number of guides");
        if (guides < 1 || guides > kMostGuides) {
            throw InputError("the number of guides is " + std::to_string(guides) +
                             "; give 1 to " + std::to_string(kMostGuides));
        }
        std::vector<Image> sources;
        for (std::uint32_t i = 0; i < guides; ++i) {
            channels_.push_back(channelCount("a guide's channels"));
            weights.push_back(weight(1.0 / guides));
            sources.push_back(image(width, height, channels_.back(), "a source guide"));
        }
        width_ = side("the target's width");
        height_ = side("the target's height");
        synthesizer_ = std::make_unique<Synthesizer>(style, sources, weights, options.parameters,
                                                     *kernels(), threads_);
    }

    // Paints one frame and answers.
    void frame() {
        const std::uint32_t flags = value<std::uint32_t>("a frame's flags");
        std::vector<Image> targets;
        for (int channels : channels_) {
            targets.push_back(image(width_, height_, channels, "a target guide"));
        }
        Field start, tracked;
        if (!(flags & kAnew)) start = before_;
        if (flags & kWithFlow) {
            const std::vector<float> flow = steps("a flow");
            if (!start.matches.empty()) start = movedAlong(start, flow.data());
        }
        if (flags & kWithTrack) {
            tracked = fieldAlong(width_, height_, styleWidth_, styleHeight_,
                                 steps("a track").data());
        }
        const Field* first = start.matches.empty() ? nullptr : &start;
        const Field* other = tracked.matches.empty() ? nullptr : &tracked;
        if (!first) std::swap(first, other);
        Result result = synthesizer_->paint(targets, first, other);
        answer(result, (flags & kWantsField) != 0);
        before_ = std::move(result.field);
    }

 private:
    // Two numbers for every pixel of the target.
    std::vector<float> steps(const std::string& what) const {
        std::vector<float> steps(std::size_t(width_) * std::size_t(height_) * 2);
        read(steps.data(), steps.size() * sizeof(float), what.c_str());
        if (!std::all_of(steps.begin(), steps.end(), [](float x) { return std::isfinite(x); })) {
            throw InputError(what + " holds a value that is no finite number; give pixels");
        }
        return steps;
    }

    static void answer(const Result& result, bool withField) {
        write("DONE", 4);
        write(result.output.pixels.data(), result.output.pixels.size());
        write(result.errors.data(), result.errors.size() * sizeof(float));
        if (withField) {
            std::vector<std::int32_t> places;
            places.reserve(result.field.matches.size() * 2);
            for (const Match& match : result.field.matches) {
                places.push_back(match.x);
                places.push_back(match.y);
            }
            write(places.data(), places.size() * sizeof(std::int32_t));
        }
        if (std::fflush(stdout)) throw InputError("stdout cannot be written; the reader is gone");
    }

    Threads threads_;
    std::vector<int> channels_;
    int styleWidth_ = 0, styleHeight_ = 0, width_ = 0, height_ = 0;
    std::unique_ptr<Synthesizer> synthesizer_;
    Field before_;
};

}  // namespace

int runSequence(const Options& options) {
    preparePipes();
    std::string message = tag();
    if (message != "EBSQ") {
        throw InputError("stdin does not begin with EBSQ; see README.md for the messages");
    }
    Segment segment(options);
    for (message = tag(); message == "FRAM"; message = tag()) segment.frame();
    if (!message.empty() && message != "STOP") {
        throw InputError("a message is neither FRAM nor STOP; see README.md for the messages");
    }
    return 0;
}

}  // namespace ebsynth
