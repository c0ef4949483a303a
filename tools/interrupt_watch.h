#ifndef PELLUCID_TOOLS_INTERRUPT_WATCH_H_
#define PELLUCID_TOOLS_INTERRUPT_WATCH_H_

#include <signal.h>

#include <array>

namespace pellucid::cli {

// Thrown when the user or the system ends the program in the middle of work
// that has to be cleaned up.
struct Interrupted {
  int signal;
};

// While it lives, SIGINT, SIGTERM and SIGHUP wait until somebody asks for them.
// At most one at a time, in the main thread.
class InterruptWatch {
 public:
  InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;
  ~InterruptWatch();

  // Throws Interrupted if one of the signals has come.
  static void Check();

 private:
  static constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, kSignals.size()> previous_;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_INTERRUPT_WATCH_H_
