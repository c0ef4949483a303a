#include "tools/worker_threads.h"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace pellucid::cli {
namespace {

constexpr std::chrono::milliseconds kWatchInterval(100);

}  // namespace

void RunWorkers(unsigned threads, const std::function<void()>& work,
                const std::function<void()>& stop,
                const std::function<void()>& watch) {
  std::mutex mutex;
  std::condition_variable ended;
  unsigned working = 0;      // Guarded by mutex.
  std::exception_ptr error;  // Guarded by mutex.
  const auto work_and_report = [&]() noexcept {
    std::exception_ptr failure;
    try {
      work();
    } catch (...) {
      failure = std::current_exception();
      stop();
    }
    const std::lock_guard lock(mutex);
    if (failure && !error) error = failure;
    --working;
    ended.notify_all();
  };
  std::vector<std::jthread> workers;
  try {
    for (unsigned i = 0; i < threads; ++i) {
      {
        const std::lock_guard lock(mutex);
        ++working;
      }
      workers.emplace_back(work_and_report);
    }
    std::unique_lock lock(mutex);
    while (
        !ended.wait_for(lock, kWatchInterval, [&] { return working == 0; })) {
      lock.unlock();
      watch();
      lock.lock();
    }
  } catch (...) {
    stop();
    throw;  // The workers are joined on the way out.
  }
  workers.clear();
  if (error) std::rethrow_exception(error);
}

}  // namespace pellucid::cli
