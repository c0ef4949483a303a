#ifndef PELLUCID_TESTS_FUSE_MOUNT_FIXTURE_H_
#define PELLUCID_TESTS_FUSE_MOUNT_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "fuse/mounted_device.h"
#include "fuse/mountpoint.h"

namespace pellucid::fuse {

// A folder that goes when the test does; everybody may enter it, and its name
// has a blank, which mount tables escape.
class TemporaryFolder {
 public:
  TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// An open file that is closed at the end.
class OpenFile {
 public:
  OpenFile(const std::filesystem::path& path, int flags);
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile();
  // -1 if it could not be opened; errno is then still that of open(2).
  int fd() const { return fd_; }

 private:
  int fd_;
};

// The process id of a child that runs `body` and exits with what it returns,
// or with 99 and a message if it throws.
pid_t Fork(const std::function<int()>& body);

// Waits for the end of a child (-1: any), at most some seconds; its status as
// waitpid(2) gives it, or -1 if it still runs.
int WaitForEnd(pid_t child);

bool IsMounted(const std::filesystem::path& mountpoint);

// Mounts devices in a child process, so that the server's end can be tested
// too. A mount or a server that is left over fails the test.
class MountTest : public ::testing::Test {
 protected:
  // The tests fail rather than skip where nothing can be mounted: a run that
  // tests no mount must not look like one that did.
  void SetUp() override;
  void TearDown() override;

  // Mounts `device` with the options of `-o`; returns when it is there. The
  // server's messages go to log_file().
  void Mount(MountedDevice device, MountpointKind kind,
             const std::string& options = "ro");
  // The same, but false if the server ends without being ready.
  bool TryMount(MountedDevice device, MountpointKind kind,
                const std::string& options);

  // Asks the server to end with `signal` and gives its exit status.
  int EndServer(int signal);
  // Unmounts from outside and gives the server's exit status.
  int EndByUnmount();
  // The server's exit status once it has ended by itself, -1 if it stays.
  int AwaitServer();

  // The file that shows the plaintext.
  std::filesystem::path disk() const;
  std::filesystem::path mountpoint() const;
  std::filesystem::path log_file() const { return folder_.path() / "log"; }
  std::string Log() const;
  const std::filesystem::path& folder() const { return folder_.path(); }
  // The status of the image file that the mount was given.
  const struct stat& image() const { return image_; }
  pid_t server() const { return server_; }
  // Run by the server before it mounts; to become another user, say.
  void set_before_mount(std::function<void()> action) {
    before_mount_ = std::move(action);
  }
  // Whether writable mounts use the kernel's writeback cache.
  void set_kernel_writeback(bool is_on) { kernel_writeback_ = is_on; }
  // Without it, mounts stay until somebody ends them.
  void set_idle_timeout(std::chrono::milliseconds timeout) {
    idle_timeout_ = timeout;
  }

 private:
  TemporaryFolder folder_;
  struct stat image_ = {};
  MountpointKind kind_ = MountpointKind::kFile;
  std::function<void()> before_mount_;
  bool kernel_writeback_ = true;
  std::optional<std::chrono::milliseconds> idle_timeout_;
  pid_t server_ = -1;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_TESTS_FUSE_MOUNT_FIXTURE_H_
