// Memory that is freed is kept for the next frame, since pages new from the system cost a tenth of the
// time. All of `new` and `delete` of the program; the address sanitizer has its own.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define EBSYNTH_OTHER_NEW
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EBSYNTH_OTHER_NEW
#endif

#if !defined(EBSYNTH_OTHER_NEW)

namespace {

constexpr std::size_t kLeast = std::size_t(1) << 15;  // bytes of a block that is kept
constexpr std::size_t kMostKept = std::size_t(1) << 26;
constexpr int kSteps = 8;  // sizes from a power of two to the next
constexpr int kSizes = 8 * int(sizeof(std::size_t)) * kSteps;
constexpr std::int32_t kNotKept = -1;

struct alignas(16) Block {
    Block* next;
    std::int32_t size;  // its number, or kNotKept
};

std::mutex mutex;
Block* kept[kSizes];
std::size_t keptBytes = 0;

// The smallest size of at least so many bytes.
std::int32_t sizeFor(std::size_t& bytes) {
    std::int32_t power = 0;
    while ((kLeast << power) * 2 <= bytes) ++power;
    const std::size_t least = kLeast << power, step = least / kSteps;
    const std::size_t steps = (bytes - least + step - 1) / step;
    bytes = least + steps * step;
    return power * kSteps + std::int32_t(steps);
}

std::size_t bytesOf(std::int32_t size) {
    const std::size_t least = kLeast << (size / kSteps);
    return least + std::size_t(size % kSteps) * (least / kSteps);
}

void giveBackAll() {
    std::lock_guard<std::mutex> lock(mutex);
    for (Block*& first : kept) {
        while (first) {
            Block* const block = first;
            first = block->next;
            std::free(block);
        }
    }
    keptBytes = 0;
}

void* allocated(std::size_t wanted) {
    std::size_t bytes = wanted + sizeof(Block);
    if (bytes < wanted || bytes > SIZE_MAX / 4) return nullptr;
    std::int32_t size = kNotKept;
    Block* block = nullptr;
    if (bytes >= kLeast) {
        size = sizeFor(bytes);
        std::lock_guard<std::mutex> lock(mutex);
        block = kept[size];
        if (block) {
            kept[size] = block->next;
            keptBytes -= bytes;
        }
    }
    if (!block) block = static_cast<Block*>(std::malloc(bytes));
    if (!block) {
        giveBackAll();
        block = static_cast<Block*>(std::malloc(bytes));
    }
    if (!block) return nullptr;
    block->size = size;
    return block + 1;
}

void freed(void* memory) {
    if (!memory) return;
    Block* const block = static_cast<Block*>(memory) - 1;
    if (block->size != kNotKept) {
        const std::size_t bytes = bytesOf(block->size);
        std::lock_guard<std::mutex> lock(mutex);
        if (keptBytes + bytes <= kMostKept) {
            block->next = kept[block->size];
            kept[block->size] = block;
            keptBytes += bytes;
            return;
        }
    }
    std::free(block);
}

}  // namespace

void* operator new(std::size_t bytes) {
    if (void* memory = allocated(bytes)) return memory;
    throw std::bad_alloc();
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return allocated(bytes); }
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return allocated(bytes); }
void operator delete(void* memory) noexcept { freed(memory); }
void operator delete(void* memory, std::size_t) noexcept { freed(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { freed(memory); }
void operator delete[](void* memory) noexcept { freed(memory); }
void operator delete[](void* memory, std::size_t) noexcept { freed(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { freed(memory); }

#endif
