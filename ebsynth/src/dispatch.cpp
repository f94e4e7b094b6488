// Which instruction set this processor offers.
#include <cstring>

#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace ebsynth {
namespace {

#if defined(__x86_64__)
// AVX2 needs the processor and an operating system that saves its registers. Asked for here, since
// the compilers' own built-ins answer "no" in programs linked with some C libraries.
bool hasAvx2() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX)) return false;
    unsigned low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 6) != 6) return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}
#else
bool hasAvx2() { return false; }
#endif

}  // namespace

const Kernels* kernels(const char* name) {
    const Kernels* all[] = {hasAvx2() ? avx2Kernels() : nullptr, neonKernels(), sse2Kernels(),
                            scalarKernels()};
    for (const Kernels* one : all) {
        if (one && (!name || std::strcmp(name, one->name) == 0)) return one;
    }
    return nullptr;
}

}  // namespace ebsynth
