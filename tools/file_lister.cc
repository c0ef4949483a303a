#include "tools/file_lister.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <span>
#include <utility>

#include "engine/io_error.h"
#include "tools/lister_protocol.h"

namespace pellucid::cli {
namespace {

using lister::ListEnd;
using lister::ListRequest;
using lister::Message;
using lister::MessageKind;
using lister::ReadAnswer;

struct SocketPair {
  FileDescriptor ours;
  FileDescriptor theirs;  // With a number that is none of the program's.
};

SocketPair MakePair() {
  constexpr const char* kName = "a pair of sockets";
  std::array<int, 2> ends;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    ThrowIoError(errno, kName);
  }
  FileDescriptor ours(ends[0]);
  const FileDescriptor low(ends[1]);
  FileDescriptor theirs(fcntl(low.get(), F_DUPFD_CLOEXEC, lister::kDataFd + 1));
  if (!theirs.is_open()) ThrowIoError(errno, kName);
  return {std::move(ours), std::move(theirs)};
}

// posix_spawn(3) with nothing open but the two sockets, as the program has it.
// Gives an errno, or 0.
int Spawn(const std::filesystem::path& program, const std::string& time_zone,
          int control, int data, pid_t* pid) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, control, lister::kControlFd);
  posix_spawn_file_actions_adddup2(&files, data, lister::kDataFd);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
  }
  posix_spawn_file_actions_addclosefrom_np(&files, lister::kDataFd + 1);
  std::string name = program.native();
  std::string zone = "TZ=" + time_zone;
  std::array<char*, 2> arguments = {name.data(), nullptr};
  std::array<char*, 2> environment = {zone.data(), nullptr};
  const int error = posix_spawn(pid, name.c_str(), &files, nullptr,
                                arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&files);
  return error;
}

// The number of bytes, 0 at the end or on an error; without waiting -1 if there
// is nothing.
ssize_t Receive(int fd, std::span<char> out, int flags = 0) {
  while (true) {
    const ssize_t received = recv(fd, out.data(), out.size(), flags);
    if (received >= 0) return received;
    if (errno == EAGAIN && (flags & MSG_DONTWAIT) != 0) return -1;
    if (errno != EINTR) return 0;
  }
}

bool Send(int fd, const void* data, size_t size) {
  while (true) {
    const ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent >= 0) return static_cast<size_t>(sent) == size;
    if (errno != EINTR) return false;
  }
}

std::string DescribeSignal(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? fmt::format("SIG{}", name)
                         : fmt::format("signal {}", signal);
}

// Why a list ended that was not complete. SIGKILL is that of the kernel, for
// want of memory, or that behind SIGXCPU.
std::string DescribeEnd(int status, const FileLister::Limits& limits) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == lister::kNotConfined) {
    return "the kernel does not confine the program that lists files";
  }
  if (!WIFSIGNALED(status)) {
    return fmt::format("libtsk ended with exit code {}", WEXITSTATUS(status));
  }
  if (WTERMSIG(status) == SIGXCPU) {
    return fmt::format("libtsk took more than {} s of processor time",
                       limits.cpu_seconds);
  }
  return fmt::format("libtsk crashed ({})", DescribeSignal(WTERMSIG(status)));
}

void Clean(std::span<char> text) {
  std::ranges::replace_if(text, lister::IsControl, '^');
}

bool IsLine(std::string_view text) {
  constexpr auto kBars = 10;  // Eleven fields.
  return std::ranges::count(text, '|') == kBars;
}

}  // namespace

// One volume.
class FileLister::Session {
 public:
  Session(const FileLister& lister, BlockDevice& volume,
          const std::function<void(std::string_view)>& add_line)
      : lister_(lister), volume_(volume), add_line_(add_line) {}

  Result Run(const ListRequest& request) {
    if (!Send(lister_.process_.control.get(), &request, sizeof request))
      return Gone();
    while (true) {
      std::array<pollfd, 2> waiting = {
          {{lister_.process_.control.get(), POLLIN, 0},
           {lister_.process_.data.get(), POLLIN, 0}}};
      if (poll(waiting.data(), waiting.size(), -1) < 0) {
        if (errno == EINTR) continue;
        ThrowIoError(errno, "poll");
      }
      // First what was sent before the end. A socket that is closed is
      // readable as well.
      if ((waiting[1].revents & POLLIN) != 0 && TakeMessage()) continue;
      if (waiting[0].revents != 0) return Finish();
      if (waiting[1].revents != 0) return Gone();
    }
  }

 private:
  Result Gone() {
    End("the program that lists files has ended unexpectedly",
        ExitCode::kFailure);
    return result_;
  }

  // The first reason counts.
  void End(const std::string& why, ExitCode exit_code) {
    if (!result_.error.empty()) return;
    result_.error = why;
    result_.exit_code = exit_code;
  }

  Result Finish() {
    ListEnd end;
    if (Receive(lister_.process_.control.get(),
                {reinterpret_cast<char*>(&end), sizeof end}) != sizeof end) {
      return Gone();
    }
    // The one that sent has gone, so this ends.
    while (TakeMessage()) {
    }
    if (!is_done_) {
      End(DescribeEnd(end.wait_status, lister_.limits_), ExitCode::kFailure);
    }
    return result_;
  }

  // False if there is none.
  bool TakeMessage() {
    const ssize_t received =
        Receive(lister_.process_.data.get(), buffer_, MSG_DONTWAIT);
    if (received <= 0) return false;
    Message message;
    if (received < static_cast<ssize_t>(sizeof message)) {
      End("the program that lists files sent half a message",
          ExitCode::kFailure);
      return true;
    }
    std::memcpy(&message, buffer_.data(), sizeof message);
    Take(message,
         std::span(buffer_).subspan(
             sizeof message, static_cast<size_t>(received) - sizeof message));
    return true;
  }

  void Take(const Message& message, std::span<char> text) {
    switch (message.kind) {
      case MessageKind::kRead:
        Answer(message.offset, message.length);
        break;
      case MessageKind::kEntry:
        AddEntry(text, message.is_deleted != 0);
        break;
      case MessageKind::kType:
        Clean(text);
        result_.type.assign(text.begin(), text.end());
        break;
      case MessageKind::kNotKnown:
        Clean(text);
        End(fmt::format("no file system that libtsk knows: {}",
                        std::string_view(text.data(), text.size())),
            ExitCode::kOk);
        is_done_ = true;
        break;
      case MessageKind::kFailed:
        Clean(text);
        End(fmt::format("libtsk: {}",
                        std::string_view(text.data(), text.size())),
            ExitCode::kCorruptImage);
        is_done_ = true;
        break;
      case MessageKind::kDone:
        is_done_ = true;
        break;
    }
  }

  // What is still sent is of no interest then.
  void Stop(const std::string& why) {
    End(why, ExitCode::kFailure);
    is_stopped_ = true;
    constexpr char kStop = 0;
    Send(lister_.process_.control.get(), &kStop, sizeof kStop);
  }

  // Bytes of the volume and nothing else, whatever was asked for.
  void Answer(uint64_t offset, uint64_t length) {
    ReadAnswer answer;
    size_t size = sizeof answer;
    if (length > 0 && length <= lister::kMaxRead && offset < volume_.size() &&
        length <= volume_.size() - offset) {
      try {
        const Extent extent = volume_.ExtentAt(offset, length);
        answer.is_hole = extent.is_hole && extent.length == length;
        if (answer.is_hole == 0) {
          volume_.Read(offset,
                       std::as_writable_bytes(
                           std::span(buffer_).subspan(sizeof answer, length)));
          size += length;
        }
        answer.is_ok = 1;
      } catch (const Error& error) {
        // libtsk may go on without it, and not tell.
        End(error.what(), error.exit_code());
      }
    }
    std::memcpy(buffer_.data(), &answer, sizeof answer);
    // Whoever asked may be gone by now, which is seen elsewhere.
    Send(lister_.process_.data.get(), buffer_.data(), size);
  }

  void AddEntry(std::span<char> text, bool is_deleted) {
    if (is_stopped_) return;
    Clean(text);
    if (!IsLine({text.data(), text.size()})) {
      Stop("the program that lists files sent what is no line of a list");
      return;
    }
    if (result_.entries >= lister_.limits_.entries) {
      Stop(fmt::format("there are more than {} entries",
                       lister_.limits_.entries));
      return;
    }
    line_.assign(text.begin(), text.end());
    line_ += '\n';
    add_line_(line_);
    ++result_.entries;
    if (is_deleted) ++result_.deleted;
  }

  const FileLister& lister_;
  BlockDevice& volume_;
  const std::function<void(std::string_view)>& add_line_;
  Result result_;
  bool is_done_ = false;
  bool is_stopped_ = false;
  std::string line_;
  std::array<char,
             sizeof(Message) + std::max(lister::kMaxText, lister::kMaxRead)>
      buffer_;
};

FileLister::FileLister(const std::filesystem::path& program,
                       const std::string& time_zone, const Limits& limits)
    : limits_(limits), process_(Start(program, time_zone)) {}

FileLister::~FileLister() {
  shutdown(process_.control.get(), SHUT_RDWR);
  shutdown(process_.data.get(), SHUT_RDWR);
  while (waitpid(process_.pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::filesystem::path FileLister::ProgramOfThisBuild() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() /
         PELLUCID_LISTER;
}

FileLister::Process FileLister::Start(const std::filesystem::path& program,
                                      const std::string& time_zone) {
  SocketPair control = MakePair();
  SocketPair data = MakePair();
  Process process = {std::move(control.ours), std::move(data.ours), -1, ""};
  const int error = Spawn(program, time_zone, control.theirs.get(),
                          data.theirs.get(), &process.pid);
  if (error == ENOENT) {
    throw Unsupported(fmt::format(
        "{}: is not there, so files cannot be listed: this pellucid was built "
        "without libtsk; install libtsk-dev, build with -DPELLUCID_TSK=ON and "
        "install it again",
        program.lexically_normal().native()));
  }
  if (error != 0) ThrowIoError(error, program.native());
  { [[maybe_unused]] const FileDescriptor closed = std::move(control.theirs); }
  { [[maybe_unused]] const FileDescriptor closed = std::move(data.theirs); }
  std::array<char, 64> version;
  const ssize_t length = Receive(process.control.get(), version);
  if (length > 0) {
    process.libtsk_version.assign(version.data(), static_cast<size_t>(length));
    return process;
  }
  while (waitpid(process.pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  throw Error(ExitCode::kFailure,
              fmt::format("{}: does not start, so files cannot be listed; are "
                          "the libraries there that it needs (libtsk)?",
                          program.lexically_normal().native()));
}

FileLister::Result FileLister::List(
    BlockDevice& volume, std::string_view prefix,
    const std::function<void(std::string_view)>& add_line) {
  ListRequest request = {.volume_size = volume.size(),
                         .cpu_seconds = limits_.cpu_seconds,
                         .memory = limits_.memory};
  prefix.copy(request.prefix, sizeof request.prefix - 1);
  return Session(*this, volume, add_line).Run(request);
}

}  // namespace pellucid::cli
