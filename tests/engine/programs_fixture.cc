#include "tests/engine/programs_fixture.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace pellucid {
namespace {

[[noreturn]] void ThrowErrno(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {
    if (fd_ < 0) ThrowErrno("descriptor");
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// A file in memory needs no thread to feed or to drain it.
Descriptor MemoryFile(std::string_view content) {
  Descriptor file(memfd_create("program", MFD_CLOEXEC));
  size_t written = 0;
  while (written < content.size()) {
    const ssize_t n =
        write(file.get(), content.data() + written, content.size() - written);
    if (n < 0) ThrowErrno("write");
    written += static_cast<size_t>(n);
  }
  lseek(file.get(), 0, SEEK_SET);
  return Descriptor(file.Release());
}

std::string Content(const Descriptor& file) {
  std::string content;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t n = pread(file.get(), buffer.data(), buffer.size(),
                            static_cast<off_t>(content.size()));
    if (n < 0) ThrowErrno("pread");
    if (n == 0) return content;
    content.append(buffer.data(), static_cast<size_t>(n));
  }
}

// -1 if there is no such program.
pid_t Spawn(const std::vector<std::string>& argv, int in, int out, int err,
            const std::filesystem::path& folder) {
  std::vector<char*> arguments;
  for (const std::string& argument : argv) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
  if (!folder.empty()) {
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  }
  std::vector<char*> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    environment.push_back(*variable);
  }
  // See fast_cpu_clock.cc.
  std::string fast_clock = "LD_PRELOAD=" PELLUCID_FAST_CPU_CLOCK;
  if (argv[0] == "qemu-img") environment.push_back(fast_clock.data());
  environment.push_back(nullptr);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, arguments[0], &actions, nullptr,
                                 arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  return error == 0 ? pid : -1;
}

int WaitForExitCode(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) ThrowErrno("waitpid");
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

ProgramResult RunProgram(const std::vector<std::string>& argv,
                         std::string_view input,
                         const std::filesystem::path& folder) {
  const Descriptor in = MemoryFile(input);
  const Descriptor out = MemoryFile("");
  const Descriptor err = MemoryFile("");
  const pid_t pid = Spawn(argv, in.get(), out.get(), err.get(), folder);
  if (pid < 0) {
    return {.exit_code = 127, .out = "", .err = argv[0] + ": cannot be run"};
  }
  const int exit_code = WaitForExitCode(pid);
  return {.exit_code = exit_code, .out = Content(out), .err = Content(err)};
}

std::string RunTool(const std::vector<std::string>& argv,
                    std::string_view input,
                    const std::filesystem::path& folder) {
  ProgramResult result = RunProgram(argv, input, folder);
  if (result.exit_code != 0) {
    throw std::runtime_error(fmt::format("exit code {} of: {}\n{}{}",
                                         result.exit_code, fmt::join(argv, " "),
                                         result.out, result.err));
  }
  return std::move(result.out);
}

BackgroundProgram::BackgroundProgram(const std::vector<std::string>& argv,
                                     std::string_view ready) {
  int in[2];
  int out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
    ThrowErrno("pipe");
  }
  input_ = in[1];
  output_ = out[0];
  pid_ = Spawn(argv, in[0], out[1], out[1], {});
  close(in[0]);
  close(out[1]);
  std::string said;
  std::array<char, 4096> buffer;
  while (pid_ > 0 && said.find(ready) == std::string::npos) {
    pollfd wait = {.fd = output_, .events = POLLIN, .revents = 0};
    const bool came = poll(&wait, 1, 30000) == 1;
    const ssize_t n = came ? read(output_, buffer.data(), buffer.size()) : 0;
    if (n > 0) {
      said.append(buffer.data(), static_cast<size_t>(n));
      continue;
    }
    kill(pid_, SIGKILL);
    WaitForExitCode(std::exchange(pid_, -1));
  }
  if (pid_ < 0) {
    close(input_);
    close(output_);
    throw std::runtime_error(
        fmt::format("{}: did not get ready: {}", fmt::join(argv, " "), said));
  }
}

BackgroundProgram::~BackgroundProgram() {
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  close(input_);
  close(output_);
}

}  // namespace pellucid
