#include "options.h"

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <functional>
#include <map>

#include "errors.h"

namespace ebsynth {
namespace {

constexpr double kLargestUniformity = 1e9;

// The words of the command line, taken from the front.
class Words {
 public:
    explicit Words(const std::vector<std::string>& words) : words_(words) {}

    bool empty() const { return next_ == words_.size(); }
    std::string take() { return words_[next_++]; }

    std::string value(const std::string& option, const char* what) {
        if (empty()) throw UsageError(option + " stands at the end; it needs " + what);
        return take();
    }

    std::string file(const std::string& option, const char* what) {
        const std::string text = value(option, what);
        if (text.empty()) throw UsageError(option + " is ''; it needs " + what);
        return text;
    }

    // From 0 on.
    double number(const std::string& option, double most) {
        const std::string text = value(option, "a number");
        char* end = nullptr;
        const double number = std::strtod(text.c_str(), &end);
        if (text.empty() || *end || !(number >= 0 && number <= most)) {
            throw UsageError(option + " is '" + text + "'; give a number from 0 to " +
                             std::to_string(static_cast<long long>(most)));
        }
        return number;
    }

    int integer(const std::string& option, int least) {
        const std::string text = value(option, "a whole number");
        char* end = nullptr;
        errno = 0;
        const long number = std::strtol(text.c_str(), &end, 10);
        if (text.empty() || *end || errno || number < least || number > INT_MAX) {
            throw UsageError(option + " is '" + text + "'; give a whole number from " +
                             std::to_string(least) + " to " + std::to_string(INT_MAX));
        }
        return static_cast<int>(number);
    }

 private:
    const std::vector<std::string>& words_;
    std::size_t next_ = 0;
};

class Parser {
 public:
    explicit Parser(const std::vector<std::string>& words) : words_(words) {}

    Options parse() {
        while (!words_.empty()) {
            const std::string option = words_.take();
            double* weighted = nullptr;
            const auto found = readers().find(option);
            if (found == readers().end()) {
                throw UsageError("'" + option + "' is no option; see -help");
            }
            found->second(*this, option, weighted);
            weight_ = weighted;
        }
        check();
        return options_;
    }

 private:
    using Reader = std::function<void(Parser&, const std::string&, double*&)>;

    static const std::map<std::string, Reader>& readers() {
        static const std::map<std::string, Reader> all = makeReaders();
        return all;
    }

    static std::map<std::string, Reader> makeReaders();

    static Reader text(std::string Options::*field) {
        return [field](Parser& p, const std::string& option, double*&) {
            p.options_.*field = p.words_.file(option, "a file");
        };
    }
    static Reader integer(int Parameters::*field, int least) {
        return [field, least](Parser& p, const std::string& option, double*&) {
            p.options_.parameters.*field = p.words_.integer(option, least);
        };
    }
    static Reader action(Action action) {
        return [action](Parser& p, const std::string&, double*&) { p.options_.action = action; };
    }

    void readGuide(const std::string& option, double*& weighted) {
        GuideFiles files;
        files.source = words_.file(option, "a source and a target");
        files.target = words_.file(option, "a source and a target");
        options_.guides.push_back(files);
        weighted = &options_.guides.back().weight;
    }

    void readWeight(const std::string& option) {
        if (!weight_) {
            throw UsageError(option + " must stand right behind -style or -guide");
        }
        const double weight = words_.number(option, kLargestWeight);
        if (!usableWeight(weight)) {
            throw UsageError(option + " is " + std::to_string(weight) +
                             ", too little to count; give 0, or 0.000001 or more");
        }
        *weight_ = weight;
    }

    void readQuality(const std::string& option) {
        const std::string word = words_.value(option, "best or balanced");
        if (word != "best" && word != "balanced") {
            throw UsageError(option + " is '" + word + "'; give best or balanced");
        }
        options_.parameters.quality = word == "best" ? Quality::best : Quality::balanced;
    }

    void readBackend(const std::string& option) {
        const std::string word = words_.value(option, "cpu");
        if (word == "cuda") {
            throw UsageError("-backend cuda is not built in; leave it out or give cpu");
        }
        if (word != "cpu") throw UsageError(option + " is '" + word + "'; give cpu");
    }

    void check() const {
        if (options_.parameters.patch % 2 == 0 || options_.parameters.patch > 31) {
            throw UsageError("-patchsize is " + std::to_string(options_.parameters.patch) +
                             "; give an odd number from 3 to 31");
        }
        if (options_.action != Action::synthesize) return;
        if (options_.style.empty()) throw UsageError("-style FILE is missing; see -help");
        if (options_.guides.empty()) {
            throw UsageError("-guide SOURCE TARGET is missing; see -help");
        }
    }

    Words words_;
    Options options_;
    double* weight_ = nullptr;
};

std::map<std::string, Parser::Reader> Parser::makeReaders() {
    std::map<std::string, Reader> all;
    all["-style"] = [](Parser& p, const std::string& option, double*& weighted) {
        p.options_.style = p.words_.file(option, "a file");
        weighted = &p.options_.styleWeight;
    };
    all["-guide"] = [](Parser& p, const std::string& option, double*& weighted) {
        p.readGuide(option, weighted);
    };
    all["-weight"] = [](Parser& p, const std::string& option, double*&) { p.readWeight(option); };
    all["-quality"] = [](Parser& p, const std::string& option, double*&) { p.readQuality(option); };
    all["-backend"] = [](Parser& p, const std::string& option, double*&) { p.readBackend(option); };
    all["-output"] = text(&Options::output);
    all["-errormap"] = text(&Options::errorMap);
    all["-nnf"] = text(&Options::field);
    all["-start"] = text(&Options::start);
    all["-uniformity"] = [](Parser& p, const std::string& option, double*&) {
        p.options_.parameters.uniformity = p.words_.number(option, kLargestUniformity);
    };
    all["-patchsize"] = integer(&Parameters::patch, 3);
    all["-pyramidlevels"] = integer(&Parameters::levels, 1);
    all["-searchvoteiters"] = integer(&Parameters::rounds, 0);
    all["-patchmatchiters"] = integer(&Parameters::sweeps, 0);
    all["-stopthreshold"] = [](Parser& p, const std::string& option, double*&) {
        p.words_.integer(option, 0);
    };
    all["-seed"] = [](Parser& p, const std::string& option, double*&) {
        p.options_.parameters.seed = static_cast<std::uint64_t>(p.words_.integer(option, 0));
    };
    all["-threads"] = [](Parser& p, const std::string& option, double*&) {
        p.options_.threads = p.words_.integer(option, 0);
    };
    all["-extrapass3x3"] = [](Parser& p, const std::string&, double*&) {
        p.options_.parameters.extraPass = true;
    };
    all["-progress"] = [](Parser& p, const std::string&, double*&) { p.options_.progress = true; };
    all["-sequence"] = action(Action::sequence);
    all["-help"] = all["--help"] = all["-h"] = action(Action::help);
    all["-version"] = all["--version"] = action(Action::version);
    all["-selftest"] = action(Action::selfTest);
    return all;
}

}  // namespace

Options parseOptions(const std::vector<std::string>& words) { return Parser(words).parse(); }

const char* const kHelp =
    "usage: ebsynth -style STYLE -guide SOURCE TARGET [-weight X] ... -output OUT.png [OPTIONS]\n"
    "       ebsynth -sequence [OPTIONS]       frames by pipe, see README.md\n"
    "       ebsynth -selftest | -version | -help\n"
    "\n"
    "  -style FILE            the painted keyframe (required)\n"
    "  -guide SOURCE TARGET   guide of the keyframe and of the wanted frame (one or more)\n"
    "  -weight X              weight of the image before it\n"
    "  -output FILE           PNG to write (output.png)\n"
    "  -uniformity X          how strongly equal use of the source is wanted (3500)\n"
    "  -patchsize N           side of a patch, odd (5)\n"
    "  -pyramidlevels N       resolutions worked through (as many as fit)\n"
    "  -searchvoteiters N     rounds of search and vote at each resolution (6)\n"
    "  -patchmatchiters N     sweeps of search in a round (4)\n"
    "  -stopthreshold N       taken for compatibility, see -quality\n"
    "  -extrapass3x3          one more pass with patches of 3 and no uniformity\n"
    "  -backend cpu           cuda is not built in\n"
    "  -quality WORD          best or balanced (balanced)\n"
    "  -seed N                of the random search (0)\n"
    "  -threads N             0: as many as cores; the result is the same\n"
    "  -errormap FILE         write the distance of every patch\n"
    "  -nnf FILE              write the nearest-neighbour field\n"
    "  -start FILE            a field to start from\n"
    "  -progress              lines of progress on stderr\n";

}  // namespace ebsynth
