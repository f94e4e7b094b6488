#include "kernels.h"
namespace ebsynth { const Kernels* sse2Kernels() { return nullptr; } }
