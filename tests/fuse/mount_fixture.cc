#include "tests/fuse/mount_fixture.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <sstream>
#include <system_error>
#include <thread>

#include "fuse/mount_options.h"
#include "fuse/mount_session.h"
#include "fuse/mount_table.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kPatience{20};

[[noreturn]] void ThrowErrno(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string name =
      (fs::temp_directory_path() / "pellucid test-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) ThrowErrno(name);
  path_ = fs::canonical(name);
  fs::permissions(path_, fs::perms{0755});
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

OpenFile::OpenFile(const fs::path& path, int flags)
    : fd_(open(path.c_str(), flags | O_CLOEXEC)) {}

OpenFile::~OpenFile() {
  if (fd_ >= 0) close(fd_);
}

pid_t Fork(const std::function<int()>& body) {
  std::cout.flush();
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) ThrowErrno("fork");
  if (child > 0) return child;
  int exit_code = 99;
  try {
    exit_code = body();
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
  }
  std::fflush(nullptr);
  // Not exit(): the test program's own end is the parent's.
  _exit(exit_code);
}

int WaitForEnd(pid_t child) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    int status = 0;
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended > 0) return status;
    if (ended < 0 && errno != EINTR) ThrowErrno("waitpid");
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return -1;
}

bool IsMounted(const fs::path& mountpoint) {
  return FindMount(mountpoint).has_value();
}

void MountTest::SetUp() {
  ASSERT_EQ(access("/dev/fuse", F_OK), 0)
      << "/dev/fuse is missing, so nothing can be mounted; these tests need "
         "the kernel's fuse module (modprobe fuse)";
  std::ofstream(folder() / "image") << std::string(5000, 'i');
  ASSERT_EQ(stat((folder() / "image").c_str(), &image_), 0);
  std::ofstream(folder() / "file");
  fs::create_directory(folder() / "directory");
}

void MountTest::TearDown() {
  if (server_ > 0) {
    ADD_FAILURE() << "the test has left its server running; log: " << Log();
    kill(server_, SIGKILL);
    WaitForEnd(server_);
  }
  // A sanitizer's findings do not always reach the exit code.
  EXPECT_EQ(Log().find("Sanitizer"), std::string::npos) << Log();
  for (const char* name : {"file", "directory"}) {
    if (!IsMounted(folder() / name)) continue;
    ADD_FAILURE() << "a mount is left over at " << (folder() / name);
    umount2((folder() / name).c_str(), MNT_DETACH);
  }
}

void MountTest::Mount(MountedDevice device, MountpointKind kind,
                      const std::string& options) {
  if (!TryMount(std::move(device), kind, options)) {
    FAIL() << "mounting failed: " << Log();
  }
}

bool MountTest::TryMount(MountedDevice device, MountpointKind kind,
                         const std::string& options) {
  kind_ = kind;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) ThrowErrno("pipe");
  server_ = Fork([&] {
    const int log =
        open(log_file().c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
    dup2(log, STDERR_FILENO);
    close(ends[0]);
    if (before_mount_) before_mount_();
    MountOptions mount_options = ParseMountOptions({options});
    mount_options.kernel_writeback = kernel_writeback_;
      mount_options.idle_timeout = idle_timeout_;
    const Mountpoint where =
        CheckMountpoint(mountpoint(), {folder() / "image"});
    MountAttendant attendant(where);
    MountSession session(std::move(device), image_, where, mount_options,
                         LogTarget::kStandardError, attendant);
    session.Run([&] { (void)!write(ends[1], "r", 1); });
    return 0;
  });
  close(ends[1]);
  char ready = 0;
  const ssize_t length = read(ends[0], &ready, 1);
  close(ends[0]);
  if (length != 1) AwaitServer();
  return length == 1;
}

int MountTest::EndServer(int signal) {
  kill(server_, signal);
  return AwaitServer();
}

int MountTest::EndByUnmount() {
  // Not by the code under test, which has tests of its own.
  int result = umount2(mountpoint().c_str(), UMOUNT_NOFOLLOW);
  // After the last close the server may be looking at its own mount.
  for (int retries = 50; result != 0 && errno == EBUSY && retries > 0;
       --retries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    result = umount2(mountpoint().c_str(), UMOUNT_NOFOLLOW);
  }
  if (result != 0 && errno == EPERM) {
    const pid_t child = Fork([&] {
      execlp("fusermount3", "fusermount3", "-u", "--", mountpoint().c_str(),
             static_cast<char*>(nullptr));
      return 127;
    });
    WaitForEnd(child);
  }
  return AwaitServer();
}

int MountTest::AwaitServer() {
  const int status = WaitForEnd(server_);
  if (status >= 0) server_ = -1;
  return status;
}

fs::path MountTest::mountpoint() const {
  return folder() / (kind_ == MountpointKind::kFile ? "file" : "directory");
}

fs::path MountTest::disk() const {
  return kind_ == MountpointKind::kFile ? mountpoint() : mountpoint() / "disk";
}

std::string MountTest::Log() const {
  std::ifstream file(log_file());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace pellucid::fuse
