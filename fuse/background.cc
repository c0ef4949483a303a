#include "fuse/background.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "engine/errors.h"
#include "engine/io_error.h"

namespace pellucid::fuse {
namespace {

// Passes the signals that would end this process on to `child` while it exists,
// and lives to tell how the child took it.
class SignalsForwarded {
 public:
  explicit SignalsForwarded(pid_t child) : child_(child) {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal_number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
      sigaddset(&signals, signal_number);
    }
    pthread_sigmask(SIG_BLOCK, &signals, &old_mask_);
    fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  }
  SignalsForwarded(const SignalsForwarded&) = delete;
  SignalsForwarded& operator=(const SignalsForwarded&) = delete;
  ~SignalsForwarded() {
    ForwardArrived();
    close(fd_);
    pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
  }

  // Readable when a signal has arrived.
  int fd() const { return fd_; }

  void ForwardArrived() {
    signalfd_siginfo info = {};
    while (read(fd_, &info, sizeof info) == sizeof info) {
      kill(child_, static_cast<int>(info.ssi_signo));
    }
  }

 private:
  const pid_t child_;
  sigset_t old_mask_;
  int fd_ = -1;
};

// True once the child is ready, false if it has closed its end of the pipe.
bool IsReady(pid_t child, int ready_fd) {
  SignalsForwarded signals(child);
  std::array<pollfd, 2> fds = {
      {{ready_fd, POLLIN, 0}, {signals.fd(), POLLIN, 0}}};
  while (true) {
    if (poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) {
      ThrowIoError(errno, "poll");
    }
    signals.ForwardArrived();
    if (fds[0].revents == 0) continue;
    char ready = 0;
    return read(ready_fd, &ready, 1) == 1;
  }
}

// The exit code of the child once it is ready or has ended.
int WaitForChild(pid_t child, int ready_fd) {
  if (IsReady(child, ready_fd)) return static_cast<int>(ExitCode::kOk);
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) ThrowIoError(errno, "waiting for the serving process");
  }
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  const char* const signal_name = sigdescr_np(WTERMSIG(status));
  throw Error(ExitCode::kFailure,
              fmt::format("nothing is mounted: the serving process was ended "
                          "by signal {} ({})",
                          WTERMSIG(status),
                          signal_name != nullptr ? signal_name : "unknown"));
}

// Does what it can: the mount is there, and stays even where a system is so odd
// that it has no /dev/null.
void DetachFromTerminal() {
  setsid();
  (void)!chdir("/");
  std::cout.flush();
  (void)std::fflush(nullptr);
  const int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null_fd < 0) return;
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    dup2(null_fd, fd);
  }
  if (null_fd > STDERR_FILENO) close(null_fd);
}

}  // namespace

int RunInBackground(
    const std::function<int(const std::function<void()>& on_ready)>& serve) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) ThrowIoError(errno, "pipe");
  // What is still buffered would otherwise be written by both.
  std::cout.flush();
  (void)std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) {
    const int error = errno;
    close(ends[0]);
    close(ends[1]);
    ThrowIoError(error, "fork");
  }
  if (child > 0) {
    close(ends[1]);
    const int exit_code = WaitForChild(child, ends[0]);
    close(ends[0]);
    return exit_code;
  }
  close(ends[0]);
  return serve([ready_fd = ends[1]] {
    DetachFromTerminal();
    const char ready = 1;
    // SIGPIPE would end the process without unmounting; MountSession blocks it.
    const bool told = write(ready_fd, &ready, 1) == 1;
    close(ready_fd);
    // Somebody killed the command before it returned: no mount is wanted.
    if (!told) kill(getpid(), SIGTERM);
  });
}

}  // namespace pellucid::fuse
