#ifndef PELLUCID_TOOLS_WORKER_THREADS_H_
#define PELLUCID_TOOLS_WORKER_THREADS_H_

#include <functional>

namespace pellucid::cli {

// Runs `work` in `threads` threads (at least 1) and returns when all have
// ended. Meanwhile calls `watch` from the calling thread about ten times a
// second. The first error of a thread, or what `watch` throws, is thrown;
// `stop` is called before, from some thread and maybe more than once, to make
// the other threads end.
void RunWorkers(unsigned threads, const std::function<void()>& work,
                const std::function<void()>& stop,
                const std::function<void()>& watch);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_WORKER_THREADS_H_
