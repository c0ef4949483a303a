#include "fuse/mount_session.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <exception>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/io_error.h"
#include "engine/printable.h"
#include "fuse/end_report.h"
#include "fuse/file_times.h"
#include "fuse/idle_unmount.h"
#include "fuse/init_reply.h"
#include "fuse/inode_keeper.h"
#include "fuse/kernel_limits.h"
#include "fuse/sandbox.h"
#include "fuse/session_signals.h"

namespace pellucid::fuse {
namespace {

constexpr char kFuseDevice[] = "/dev/fuse";
constexpr char kFuseConfiguration[] = "/etc/fuse.conf";

// Collects what libfuse says in this thread, instead of letting it print.
class LibfuseMessages {
 public:
  LibfuseMessages() {
    collected_ = &text_;
    fuse_set_log_func(&LibfuseMessages::Collect);
  }
  LibfuseMessages(const LibfuseMessages&) = delete;
  LibfuseMessages& operator=(const LibfuseMessages&) = delete;
  ~LibfuseMessages() {
    fuse_set_log_func(nullptr);
    collected_ = nullptr;
  }

  // The messages on one line, without libfuse's own prefix.
  std::string Text() const {
    std::string text = text_;
    while (!text.empty() && text.back() == '\n') text.pop_back();
    std::replace(text.begin(), text.end(), '\n', ';');
    constexpr std::string_view kPrefix = "fuse: ";
    if (text.starts_with(kPrefix)) text.erase(0, kPrefix.size());
    return text;
  }

 private:
  __attribute__((format(printf, 2, 0))) static void Collect(fuse_log_level,
                                                            const char* format,
                                                            va_list arguments) {
    char line[512];
    (void)std::vsnprintf(line, sizeof line, format, arguments);
    if (collected_ != nullptr) {
      *collected_ += line;
    } else {
      (void)std::fputs(line, stderr);
    }
  }

  static thread_local std::string* collected_;
  std::string text_;
};

thread_local std::string* LibfuseMessages::collected_ = nullptr;

bool UsersMayAllowOthers() {
  std::ifstream file(kFuseConfiguration);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("user_allow_other")) return true;
  }
  return false;
}

// What the user can do about a mount that failed; starts with "; " if anything.
std::string Remedy(const MountOptions& options) {
  if (access(kFuseDevice, F_OK) != 0) {
    return fmt::format(
        "; {} is missing: load the kernel's fuse module "
        "(modprobe fuse), or give the container that device",
        kFuseDevice);
  }
  if (getuid() == 0) return "";
  if (access(kFuseDevice, R_OK | W_OK) != 0) {
    return fmt::format("; ask for read and write access to {} (mode 0666)",
                       kFuseDevice);
  }
  if ((options.allow_other || options.allow_root) && !UsersMayAllowOthers()) {
    return fmt::format("; for -o {} the line user_allow_other must stand in {}",
                       options.allow_other ? "allow_other" : "allow_root",
                       kFuseConfiguration);
  }
  return "; fusermount3 (package fuse3) must be installed set-user-id root, "
         "and you need the right to write to the mountpoint";
}

// A libfuse session, mounted or not; unmounts and frees it at the end.
class LibfuseSession {
 public:
  LibfuseSession(const MountOptions& options, bool is_writable,
                 PlaintextFilesystem& filesystem, MountAttendant& attendant)
      : attendant_(attendant) {
    std::vector<std::string> arguments = LibfuseArguments(options, is_writable);
    arguments.insert(arguments.begin(), "pellucid");
    std::vector<char*> pointers;
    pointers.reserve(arguments.size());
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    fuse_args args =
        FUSE_ARGS_INIT(static_cast<int>(pointers.size()), pointers.data());
    const LibfuseMessages messages;
    const fuse_lowlevel_ops& operations = PlaintextFilesystem::Operations();
    session_ =
        fuse_session_new(&args, &operations, sizeof operations, &filesystem);
    fuse_opt_free_args(&args);
    if (session_ == nullptr) {
      throw Error(ExitCode::kFailure,
                  fmt::format("libfuse: {}", messages.Text()));
    }
    filesystem.set_session(session_);
  }
  LibfuseSession(const LibfuseSession&) = delete;
  LibfuseSession& operator=(const LibfuseSession&) = delete;
  ~LibfuseSession() {
    Unmount();
    fuse_session_destroy(session_);
  }

  void Mount(const Mountpoint& mountpoint, const MountOptions& options) {
    const LibfuseMessages messages;
    if (fuse_session_mount(session_, mountpoint.path.c_str()) != 0) {
      const std::string reason = messages.Text();
      throw Error(
          ExitCode::kFailure,
          fmt::format("{}: cannot mount{}{}{}", mountpoint.path.string(),
                      reason.empty() ? "" : ": ", reason, Remedy(options)));
    }
    mounted_ = true;
  }

  void ExpectWrites() { AddKillPrivilegesPromise(session_); }

  // Ends the connection, so that whoever waits for an answer gets an error, and
  // detaches the mount if it is still there. Not while it is being served.
  void Unmount() {
    if (!std::exchange(mounted_, false)) return;
    const bool is_there = !EndConnection();
    // libfuse finds the mount gone, and only tidies up.
    fuse_session_unmount(session_);
    if (!is_there) return;
    try {
      attendant_.Detach();
    } catch (const std::exception& error) {
      fmt::print(stderr, "pellucid: unmounting: {}\n", Printable(error.what()));
    }
  }

  // Returns 0 or a negated errno.
  int Serve() {
    // Two for each processor: one decrypts while another waits for the disk.
    const unsigned threads =
        std::clamp(2 * std::thread::hardware_concurrency(), 4U, 32U);
    fuse_loop_config* const config = fuse_loop_cfg_create();
    if (config == nullptr) return -ENOMEM;
    fuse_loop_cfg_set_clone_fd(config, 1);
    fuse_loop_cfg_set_max_threads(config, threads);
    fuse_loop_cfg_set_idle_threads(config, threads);
    const int result = fuse_session_loop_mt(session_, config);
    fuse_loop_cfg_destroy(config);
    return result;
  }

  void Exit() { fuse_session_exit(session_); }

 private:
  // Closes the connection, without which unmounting could wait for an answer
  // from here; in its place comes one that has ended. True if it had ended.
  bool EndConnection() {
    const int connection = fuse_session_fd(session_);
    pollfd state = {connection, 0, 0};
    const bool had_ended =
        poll(&state, 1, 0) == 1 && (state.revents & POLLERR) != 0;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return had_ended;
    close(ends[0]);  // Whoever polls the other end is told of an error.
    dup3(ends[1], connection, O_CLOEXEC);
    close(ends[1]);
    return had_ended;
  }

  MountAttendant& attendant_;
  fuse_session* session_ = nullptr;
  bool mounted_ = false;
};

}  // namespace

MountSession::MountSession(MountedDevice device, const struct stat& image,
                           Mountpoint mountpoint, MountOptions options,
                           LogTarget log_target, MountAttendant& attendant)
    : device_(std::move(device)),
      image_(image),
      mountpoint_(std::move(mountpoint)),
      options_(std::move(options)),
      attendant_(attendant),
      log_(log_target, attendant) {
  if (!IsWritableMount(options_, device_.writable != nullptr)) {
    device_.writable = nullptr;
  }
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  if (stop_fd_ < 0) ThrowIoError(errno, "eventfd");
}

MountSession::~MountSession() { close(stop_fd_); }

void MountSession::Stop() { eventfd_write(stop_fd_, 1); }

void MountSession::Run(const std::function<void()>& on_ready) {
  const StopSignalsBlocked signals;
  const bool is_writable = device_.writable != nullptr;
  FileTimes times(image_);
  InodeKeeper keeper(attendant_, mountpoint_.kind, device_.device->size(),
                     times);
  PlaintextFilesystem filesystem(device_, image_, mountpoint_.kind, options_,
                                 log_, times, is_writable ? &keeper : nullptr);
  LibfuseSession session(options_, is_writable, filesystem, attendant_);
  EndReport end_report;
  filesystem.set_server_description(
      is_writable ? fmt::format("{} {}", getpid(), end_report.name())
                  : fmt::format("{}", getpid()));
  session.Mount(mountpoint_, options_);
  RaiseKernelLimits(mountpoint_);
  // Before there are other threads: rights are those of a thread.
  if (options_.sandbox) EnterSandbox(*options_.sandbox);
  if (device_.start) device_.start();
  filesystem.Start();
  if (is_writable) session.ExpectWrites();
  std::optional<IdleUnmount> idle_unmount;
  if (options_.idle_timeout) {
    idle_unmount.emplace(attendant_, is_writable, filesystem.activity(),
                         *options_.idle_timeout, log_);
  }
  const auto on_mounted = [&] {
    if (idle_unmount) idle_unmount->Start();
    on_ready();
  };
  std::exception_ptr failure;  // Of the keeper's thread, which ends with it.
  if (is_writable) {
    keeper.Start(on_mounted, [&](std::exception_ptr reason) {
      failure = std::move(reason);
      Stop();
    });
  } else {
    filesystem.set_on_ready(on_mounted);
  }
  int result = 0;
  {
    const StopWatch watch(signals, stop_fd_, [&] {
      filesystem.Abandon();
      if (idle_unmount) idle_unmount->Stop();
      if (is_writable) {
        keeper.Stop();
        PrepareEnd(filesystem);
      }
      session.Exit();
    });
    result = session.Serve();
    // The watch and the keeper may be waiting for an answer.
    if (result < 0) session.Unmount();
  }
  session.Unmount();
  keeper.Stop();
  if (idle_unmount) idle_unmount->Stop();
  if (is_writable) FlushDevice(filesystem.lost_pages_errno(), end_report);
  if (failure) std::rethrow_exception(failure);
  // Not ENODEV, which libfuse knows as the end, if a thread was just taking
  // over a request: the last close of a mount that was detached is followed by
  // one.
  if (result < 0 && result != -ECONNABORTED) {
    ThrowIoError(-result, kFuseDevice);
  }
}

void MountSession::PrepareEnd(PlaintextFilesystem& filesystem) {
  try {
    using Result = OwnMount::UnmountResult;
    if (attendant_.UnmountIfIdle() == Result::kDone) return;
  } catch (const std::exception& error) {
    log_.Report("unmounting", error.what());
  }
  // In use, or out of reach. The kernel takes writes to its cache for done
  // without a question: no more of them, or the last would be lost.
  filesystem.RefuseWriting();
  // By the file is faster, and waits for the write that is just being made; the
  // other way needs no path and no permission.
  attendant_.Sync();
  filesystem.RefuseOpening();
  filesystem.DropKernelPages();
}

void MountSession::FlushDevice(int lost_pages_errno, EndReport& end_report) {
  try {
    device_.writable->Flush();
    if (lost_pages_errno != 0) {
      ThrowIoError(lost_pages_errno, "writing what the kernel had cached");
    }
  } catch (const std::exception& error) {
    log_.Report("making everything durable before the end", error.what());
    end_report.Tell(ReplyErrno(error));
    throw;
  }
  end_report.Tell(0);
}

}  // namespace pellucid::fuse
