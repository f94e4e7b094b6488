#include "kernels.h"
namespace ebsynth { const Kernels* neonKernels() { return nullptr; } }
