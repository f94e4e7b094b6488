// The program `ebsynth`: guided patch synthesis on the command line (../README.md).
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "errors.h"
#include "files.h"
#include "options.h"
#include "run.h"

#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#include <shellapi.h>
#endif

namespace {

// The words of the command line in UTF-8.
std::vector<std::string> wordsOf(int count, char** values) {
#if defined(_WIN32)
    (void)count;
    (void)values;
    int wideCount = 0;
    wchar_t** wide = CommandLineToArgvW(GetCommandLineW(), &wideCount);
    std::vector<std::string> words;
    for (int i = 1; wide && i < wideCount; ++i) {
        const int size = WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, nullptr, 0, nullptr, nullptr);
        std::string word(static_cast<std::size_t>(size > 0 ? size - 1 : 0), '\0');
        WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, &word[0], size, nullptr, nullptr);
        words.push_back(word);
    }
    LocalFree(wide);
    return words;
#else
    return std::vector<std::string>(values + (count > 0 ? 1 : 0), values + count);
#endif
}

// One line, whatever stands in the names of files.
int failed(std::string what, int code) {
    for (char& letter : what) {
        if (letter == '\n' || letter == '\r') letter = ' ';
    }
    std::fprintf(stderr, "ebsynth: %s\n", what.c_str());
    return code;
}

}  // namespace

int main(int count, char** values) {
    try {
        return ebsynth::run(ebsynth::parseOptions(wordsOf(count, values)));
    } catch (const ebsynth::UsageError& error) {
        return failed(error.what(), ebsynth::kExitUsage);
    } catch (const ebsynth::InputError& error) {
        return failed(error.what(), ebsynth::kExitInput);
    } catch (const std::bad_alloc&) {
        return failed("memory ran out; use smaller images or fewer threads",
                      ebsynth::kExitInternal);
    } catch (const std::exception& error) {
        return failed(std::string("a fault of this program: ") + error.what(),
                      ebsynth::kExitInternal);
    }
}
