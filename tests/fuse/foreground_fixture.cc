#include "tests/fuse/foreground_fixture.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {

ForegroundMount::ForegroundMount(std::vector<std::string> arguments,
                                 const std::filesystem::path& mountpoint,
                                 const std::filesystem::path& log)
    : mountpoint_(mountpoint) {
  arguments.insert(arguments.begin(), PELLUCID_PROGRAM);
  arguments.insert(arguments.end(), {"--foreground", mountpoint.native()});
  pid_ = Fork([&] {
    const int file = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
    dup2(file, STDERR_FILENO);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    return 127;
  });
  for (int i = 0; i < 10'000 && !IsMounted(mountpoint_); ++i) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) > 0) {
      pid_ = -1;
      std::ifstream said(log);
      throw std::runtime_error(
          fmt::format("pellucid mount ended: {}",
                      std::string(std::istreambuf_iterator<char>(said), {})));
    }
    usleep(2'000);
  }
  if (!IsMounted(mountpoint_)) throw std::runtime_error("nothing was mounted");
}

ForegroundMount::~ForegroundMount() {
  if (pid_ > 0) Kill();
}

void ForegroundMount::Kill() {
  kill(pid_, SIGKILL);
  waitpid(std::exchange(pid_, -1), nullptr, 0);
  umount2(mountpoint_.c_str(), MNT_DETACH);
}

int ForegroundMount::End(int signal) {
  kill(pid_, signal);
  return Await();
}

int ForegroundMount::Await() {
  const int status = WaitForEnd(pid_);
  if (status >= 0) pid_ = -1;
  return status;
}

uint64_t ForegroundMount::peak_bytes() const {
  std::ifstream status(fmt::format("/proc/{}/status", pid_));
  const std::string field = "VmHWM:";
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field)) {
      return std::stoull(line.substr(field.size())) << 10;
    }
  }
  throw std::runtime_error("the server's memory is not told");
}

}  // namespace pellucid::fuse
