#include "threads.h"

#include <algorithm>

namespace ebsynth {

Threads::Threads(int count) {
    const int wanted = count > 0 ? count : static_cast<int>(std::thread::hardware_concurrency());
    for (int thread = 1; thread < std::clamp(wanted, 1, 256); ++thread) {
        crew_.emplace_back([this, thread] { serve(thread); });
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
    std::unique_lock<std::mutex> lock(mutex_);
    end_.wait(lock, [this] { return busy_ == 0; });
    if (failure_) std::rethrow_exception(failure_);
}

void Threads::serve(int thread) {
    unsigned seen = 0;
    while (true) {
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
            if (!failure_) failure_ = std::current_exception();
        }
    }
}

}  // namespace ebsynth
