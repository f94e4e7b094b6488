#include "threads.h"

#include <algorithm>
#include <memory>
#include <new>
#include <system_error>

namespace ebsynth {
namespace {

constexpr int kRowsOfTask = 16;
constexpr std::size_t kRoomForWork = std::size_t(64) << 20;
constexpr int kLooks = 2000;  // tenths of a millisecond: what follows in a round comes sooner

// Looks a while before sleeping, since waking takes longer than most waits; others may run meanwhile.
template <class Condition>
void lookFor(const Condition& condition) {
    for (int look = 0; look < kLooks && !condition(); ++look) std::this_thread::yield();
}

}  // namespace

Threads::Threads(int count) {
    const int wanted = count > 0 ? count : static_cast<int>(std::thread::hardware_concurrency());
    // The stacks of threads leave the work so much; it is touched once lest compilers drop it.
    const std::unique_ptr<char[]> room(new (std::nothrow) char[kRoomForWork]);
    if (!room) return;
    *static_cast<volatile char*>(room.get()) = 0;
    for (int thread = 1; thread < std::clamp(wanted, 1, 256); ++thread) {
        try {
            crew_.emplace_back([this, thread] { serve(thread); });
        } catch (const std::system_error&) {
            break;
        }
    }
}

Threads::~Threads() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        over_ = true;
    }
    begin_.notify_all();
    for (std::thread& thread : crew_) thread.join();
}

void Threads::run(int tasks, const std::function<void(int, int)>& work) {
    if (crew_.empty() || tasks <= 1) {
        for (int task = 0; task < tasks; ++task) work(task, 0);
        return;
    }
    {
        std::lock_guard<std::mutex> lock(mutex_);
        work_ = &work;
        next_ = 0;
        tasks_ = tasks;
        busy_ = count();
        failure_ = nullptr;
        ++turn_;
    }
    begin_.notify_all();
    workOn(0);
    lookFor([this] { return busy_ == 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    end_.wait(lock, [this] { return busy_ == 0; });
    if (failure_) std::rethrow_exception(failure_);
}

void Threads::runRows(int rows, const std::function<void(int, int)>& work) {
    run((rows + kRowsOfTask - 1) / kRowsOfTask, [&](int task, int) {
        const int first = task * kRowsOfTask;
        work(first, std::min(first + kRowsOfTask, rows));
    });
}

void Threads::serve(int thread) {
    unsigned seen = 0;
    while (true) {
        lookFor([&] { return turn_ != seen; });
        {
            std::unique_lock<std::mutex> lock(mutex_);
            begin_.wait(lock, [&] { return over_ || turn_ != seen; });
            if (over_) return;
            seen = turn_;
        }
        workOn(thread);
    }
}

void Threads::workOn(int thread) {
    while (true) {
        int task;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            task = next_ < tasks_ && !failure_ ? next_++ : -1;
            if (task < 0) {
                if (--busy_ == 0) end_.notify_all();
                return;
            }
        }
        try {
            (*work_)(task, thread);
        } catch (...) {
            std::lock_guard<std::mutex> lock(mutex_);
            if (!failure_ || task < failed_) {
                failure_ = std::current_exception();
                failed_ = task;
            }
        }
    }
}

}  // namespace ebsynth
