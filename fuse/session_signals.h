#ifndef PELLUCID_FUSE_SESSION_SIGNALS_H_
#define PELLUCID_FUSE_SESSION_SIGNALS_H_

#include <signal.h>

#include <functional>
#include <thread>

namespace pellucid::fuse {

// While it exists, SIGTERM, SIGINT and SIGHUP are blocked in the thread that
// made it, and in threads started from there, so that StopWatch receives them.
// A signal that the process ignores stays ignored. SIGPIPE is blocked too:
// losing the reader of standard error is no reason to die. Not synchronised.
class StopSignalsBlocked {
 public:
  StopSignalsBlocked();
  StopSignalsBlocked(const StopSignalsBlocked&) = delete;
  StopSignalsBlocked& operator=(const StopSignalsBlocked&) = delete;
  // Forgets signals that have arrived meanwhile: they asked for what has
  // happened.
  ~StopSignalsBlocked();

  // The signals that ask for a stop.
  const sigset_t& stop_signals() const { return stop_signals_; }

 private:
  sigset_t stop_signals_;
  sigset_t old_mask_;
};

// Waits in a thread of its own for a stop signal or for `stop_fd` to become
// readable, then calls `stop` once, and from then on interrupts the system
// calls of the thread that made it until it goes: libfuse's loop looks at its
// exit flag only when it wakes up.
class StopWatch {
 public:
  // Throws IoError.
  StopWatch(const StopSignalsBlocked& signals, int stop_fd,
            std::function<void()> stop);
  StopWatch(const StopWatch&) = delete;
  StopWatch& operator=(const StopWatch&) = delete;
  ~StopWatch();

 private:
  void Run();

  const int stop_fd_;  // Borrowed.
  const std::function<void()> stop_;
  const pthread_t interrupted_thread_;
  int signal_fd_ = -1;
  int end_fd_ = -1;  // An eventfd that becomes readable when this goes.
  std::thread thread_;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_SESSION_SIGNALS_H_
