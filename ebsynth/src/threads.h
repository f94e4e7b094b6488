// A fixed crew of threads that works through numbered tasks.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ebsynth {

class Threads {
 public:
    // 0: as many as cores.
    explicit Threads(int count);
    ~Threads();
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;

    int count() const { return static_cast<int>(crew_.size()) + 1; }

    // Runs work(task, thread) for tasks 0 .. tasks - 1 and returns when all are done; thread is
    // 0 .. count() - 1. The first exception is thrown again here.
    void run(int tasks, const std::function<void(int, int)>& work);

 private:
    void serve(int thread);
    void workOn(int thread);

    std::vector<std::thread> crew_;
    std::mutex mutex_;
    std::condition_variable begin_, end_;
    const std::function<void(int, int)>* work_ = nullptr;
    int next_ = 0, tasks_ = 0, busy_ = 0;
    unsigned turn_ = 0;
    bool over_ = false;
    std::exception_ptr failure_;
};

}  // namespace ebsynth
