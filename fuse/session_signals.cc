#include "fuse/session_signals.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <utility>

#include "engine/io_error.h"

namespace pellucid::fuse {
namespace {

// Has no meaning but to make a system call return.
constexpr int kWakeSignal = SIGUSR1;
constexpr int kWakeIntervalMilliseconds = 5;

bool IsIgnored(int signal_number) {
  struct sigaction action = {};
  sigaction(signal_number, nullptr, &action);
  return (action.sa_flags & SA_SIGINFO) == 0 && action.sa_handler == SIG_IGN;
}

void Ignore(int) {}

void InstallWakeHandler() {
  struct sigaction action = {};
  action.sa_handler = Ignore;
  // Not SA_RESTART: being interrupted is the purpose.
  sigaction(kWakeSignal, &action, nullptr);
  sigset_t wake;
  sigemptyset(&wake);
  sigaddset(&wake, kWakeSignal);
  pthread_sigmask(SIG_UNBLOCK, &wake, nullptr);
}

int CheckDescriptor(int fd, const char* what) {
  if (fd < 0) ThrowIoError(errno, what);
  return fd;
}

// True if one of `fds` has become readable within the time (-1: no limit).
template <size_t kCount>
bool WaitForAny(std::array<pollfd, kCount>& fds, int timeout_milliseconds) {
  int ready = 0;
  do {
    ready = poll(fds.data(), fds.size(), timeout_milliseconds);
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

}  // namespace

StopSignalsBlocked::StopSignalsBlocked() {
  sigemptyset(&stop_signals_);
  for (const int signal_number : {SIGTERM, SIGINT, SIGHUP}) {
    if (!IsIgnored(signal_number)) sigaddset(&stop_signals_, signal_number);
  }
  sigset_t blocked = stop_signals_;
  sigaddset(&blocked, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &blocked, &old_mask_);
}

StopSignalsBlocked::~StopSignalsBlocked() {
  sigset_t forgotten = stop_signals_;
  sigaddset(&forgotten, SIGPIPE);
  const timespec at_once = {};
  while (sigtimedwait(&forgotten, nullptr, &at_once) > 0) {
  }
  pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

StopWatch::StopWatch(const StopSignalsBlocked& signals, int stop_fd,
                     std::function<void()> stop)
    : stop_fd_(stop_fd),
      stop_(std::move(stop)),
      interrupted_thread_(pthread_self()) {
  InstallWakeHandler();
  end_fd_ = CheckDescriptor(eventfd(0, EFD_CLOEXEC), "eventfd");
  signal_fd_ = CheckDescriptor(
      signalfd(-1, &signals.stop_signals(), SFD_CLOEXEC), "signalfd");
  thread_ = std::thread([this] { Run(); });
}

StopWatch::~StopWatch() {
  eventfd_write(end_fd_, 1);
  thread_.join();
  close(signal_fd_);
  close(end_fd_);
}

void StopWatch::Run() {
  std::array<pollfd, 3> fds = {
      {{end_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}, {signal_fd_, POLLIN, 0}}};
  WaitForAny(fds, -1);
  if (fds[0].revents != 0) return;
  stop_();
  // Once might be too early: just before the other thread goes to sleep.
  std::array<pollfd, 1> end = {{{end_fd_, POLLIN, 0}}};
  do {
    pthread_kill(interrupted_thread_, kWakeSignal);
  } while (!WaitForAny(end, kWakeIntervalMilliseconds));
}

}  // namespace pellucid::fuse
