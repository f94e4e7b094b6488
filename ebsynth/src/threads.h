// A fixed crew of threads that works through numbered tasks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ebsynth {

class Threads {
 public:
    // 0: as many as cores. Fewer where the system gives no more.
    explicit Threads(int count);
    ~Threads();
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;

    int count() const { return static_cast<int>(crew_.size()) + 1; }

    // Runs work(task, thread) for tasks 0 .. tasks - 1 and returns when all are done; thread is
    // 0 .. count() - 1. Of exceptions that of the lowest task is thrown again here.
    void run(int tasks, const std::function<void(int, int)>& work);

    // Runs work(first, end) for ranges of rows that make up 0 .. rows - 1.
    void runRows(int rows, const std::function<void(int, int)>& work);

 private:
    void serve(int thread);
    void workOn(int thread);

    std::vector<std::thread> crew_;
    std::mutex mutex_;
    std::condition_variable begin_, end_;
    const std::function<void(int, int)>* work_ = nullptr;
    int next_ = 0, tasks_ = 0, failed_ = 0;
    std::atomic<int> busy_{0};
    std::atomic<unsigned> turn_{0};
    bool over_ = false;
    std::exception_ptr failure_;
};

}  // namespace ebsynth
