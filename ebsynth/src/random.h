// Random numbers of our own: a place and a time give the same number on every machine.
#pragma once

#include <cstdint>

namespace ebsynth {

// 64 well-mixed bits of a counter (the finaliser of SplitMix64; Steele, Lea and Flood 2014).
inline std::uint64_t mixed(std::uint64_t x) {
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

// A whole number in [0, range), from 32 random bits.
inline int below(std::uint32_t bits, int range) {
    return static_cast<int>((std::uint64_t(bits) * static_cast<std::uint32_t>(range)) >> 32);
}

}  // namespace ebsynth
