#include "tools/interrupt_watch.h"

#include <atomic>

namespace pellucid::cli {
namespace {

std::atomic<int> received_signal = 0;
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void NoteInterrupt(int signal_number) {
  received_signal = signal_number;
}

}  // namespace

InterruptWatch::InterruptWatch() {
  received_signal = 0;
  struct sigaction action {};
  action.sa_handler = NoteInterrupt;
  action.sa_flags = SA_RESTART;
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], nullptr, &previous_[i]);
    // What our parent told us to ignore (nohup) stays ignored.
    if (previous_[i].sa_handler != SIG_IGN) {
      sigaction(kSignals[i], &action, nullptr);
    }
  }
}

InterruptWatch::~InterruptWatch() {
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], &previous_[i], nullptr);
  }
}

void InterruptWatch::Check() {
  if (const int signal_number = received_signal.load(); signal_number != 0) {
    throw Interrupted{signal_number};
  }
}

}  // namespace pellucid::cli
