// Threads that share the work of one call.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <unistd.h>

namespace {

struct Range {
    int64_t begin, end;
};

// Threads that work on one thing together. They look out for each other for a moment and then sleep: on a machine that
// is busy with other things, a thread that only looks out keeps the one that it waits for from running.
class Team {
  public:
    struct Member {
        Team *team;
        int64_t index, count;

        // The part of 0 .. total - 1 that this thread owns.
        Range own(int64_t total) const { return {total * index / count, total * (index + 1) / count}; }

        // Until all threads have come here.
        void meet() const {
            if (count > 1) team->meet();
        }
    };

    // Threads that are worth waking for so many products.
    static int worthwhile(int threads, int64_t products) { return products < ALONE ? 1 : threads; }

    explicit Team(int size) : size_(size) {
        for (int i = 1; i < size; i++) threads_.emplace_back([this, i] { serve(i); });
    }

    ~Team() {
        work_ = nullptr;
        job_.fetch_add(1);
        job_.notify_all();
        for (std::thread &thread : threads_) thread.join();
    }

    template <typename Work>
    void run(const Work &work) {
        work_ = [&work, this](int index) { work(Member{this, index, size_}); };
        job_.fetch_add(1);
        job_.notify_all();
        work_(0);
        meet();
    }

    // The team of this process, of so many threads; one caller at a time.
    template <typename Work>
    static void together(int threads, const Work &work) {
        if (threads == 1) return work(Member{nullptr, 0, 1});
        static std::mutex one;
        static Team *team = nullptr;
        static pid_t process = 0;
        const std::lock_guard<std::mutex> lock(one);
        if (process != getpid()) team = nullptr;  // not ended: its threads did not come along in the fork
        process = getpid();
        if (!team || team->size_ != threads) {
            delete team;
            team = new Team(threads);
        }
        team->run(work);
    }

  private:
    void serve(int index) {
        for (uint32_t done = 0;; done++) {
            await(job_, done, BETWEEN_CALLS);
            if (!work_) return;
            work_(index);
            meet();
        }
    }

    void meet() {
        const uint32_t now = meetings_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            meetings_.fetch_add(1);  // sequentially consistent: a thread that is about to sleep must not miss it
            meetings_.notify_all();
        } else {
            await(meetings_, now, BETWEEN_PARTS);
        }
    }

    // Until a counter is no longer `value`.
    static void await(const std::atomic<uint32_t> &counter, uint32_t value, int looks) {
        for (int i = 0; i < looks; i++)
            if (counter.load(std::memory_order_acquire) != value) return;
        while (counter.load(std::memory_order_acquire) == value) counter.wait(value, std::memory_order_acquire);
    }

    // Some 10 us each. No `pause` between the looks: a virtual machine may be halted for it, which takes far longer.
    static constexpr int BETWEEN_CALLS = 20000, BETWEEN_PARTS = 20000;

    static constexpr int64_t ALONE = 1 << 20;

    const int size_;
    std::function<void(int)> work_;  // none: end
    std::atomic<uint32_t> job_{0}, meetings_{0};
    std::atomic<int> arrived_{0};
    std::vector<std::thread> threads_;  // the last one: they use all of the above as soon as they begin
};

}  // namespace
