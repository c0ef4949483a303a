// Files in the making, and what reaches the disk in which order. The calls of
// the host that matter for that are noted on their way.

#include "engine/new_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct HostCalls {
  std::vector<std::string> calls;
  int folder_flush_errno = 0;
};
HostCalls* g_host_calls = nullptr;  // Null: nobody wants to know.

void Note(const std::string& call) {
  if (g_host_calls != nullptr) g_host_calls->calls.push_back(call);
}

std::string NameOf(int fd) {
  return fs::read_symlink(fmt::format("/proc/self/fd/{}", fd)).filename();
}

}  // namespace
}  // namespace pellucid

extern "C" int fdatasync(int fd) {
  pellucid::Note("fdatasync " + pellucid::NameOf(fd));
  return static_cast<int>(syscall(SYS_fdatasync, fd));
}

extern "C" int fsync(int fd) {
  pellucid::Note("fsync " + pellucid::NameOf(fd));
  if (pellucid::g_host_calls != nullptr &&
      pellucid::g_host_calls->folder_flush_errno != 0) {
    errno = pellucid::g_host_calls->folder_flush_errno;
    return -1;
  }
  return static_cast<int>(syscall(SYS_fsync, fd));
}

extern "C" int rename(const char* from, const char* to) noexcept {
  pellucid::Note("rename to " + std::string(to));
  return static_cast<int>(
      syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

namespace pellucid {
namespace {

class NewFileTest : public ::testing::Test {
 protected:
  NewFileTest() { WriteHostFile(Path("old"), "precious"); }

  fs::path Path(std::string_view name) const { return folder_ / name; }

  void Write(NewFile& file, size_t size) {
    file.device().Write(0, Noise(size, 1));
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  struct stat Stat(std::string_view name) const {
    struct stat stat = {};
    EXPECT_EQ(lstat(Path(name).c_str(), &stat), 0);
    return stat;
  }

  // What the host was asked to do while `call` ran.
  template <typename Call>
  std::vector<std::string> HostCallsOf(Call call, int folder_flush_errno = 0) {
    HostCalls noted = {.calls = {}, .folder_flush_errno = folder_flush_errno};
    g_host_calls = &noted;
    call();
    g_host_calls = nullptr;
    return noted.calls;
  }

  ScratchFolder folder_;
};

TEST_F(NewFileTest, ContentAndNameOfANewFileReachTheDisk) {
  NewFile file(Path("new"), false);
  Write(file, 5000);
  EXPECT_THAT(HostCallsOf([&] { file.Keep(); }),
              ElementsAre("fdatasync new",
                          "fsync " + folder_.path().filename().native()));
  EXPECT_EQ(ReadHostFile(Path("new")), Noise(5000, 1));
  EXPECT_EQ(Stat("new").st_mode & 07777, 0600U);
}

TEST_F(NewFileTest, ContentThatReplacesAnotherIsCompleteBefore) {
  NewFile file(Path("old"), true);
  EXPECT_EQ(file.device().size(), 0U);
  Write(file, 5000);
  EXPECT_EQ(fs::file_size(Path("old")), 8U);
  EXPECT_THAT(HostCallsOf([&] { file.Keep(); }),
              ElementsAre(HasSubstr("fdatasync .pellucid-"),
                          "rename to " + fs::canonical(Path("old")).native(),
                          "fsync " + folder_.path().filename().native()));
  EXPECT_EQ(ReadHostFile(Path("old")), Noise(5000, 1));
  EXPECT_THAT(Names(), ElementsAre("old"));
}

TEST_F(NewFileTest, WhatIsNotKeptLeavesWhatWasThere) {
  {
    NewFile made(Path("new"), true);
    NewFile replacing(Path("old"), true);
    Write(made, 5000);
    Write(replacing, 5000);
  }
  EXPECT_THAT(Names(), ElementsAre("old"));
  EXPECT_EQ(fs::file_size(Path("old")), 8U);
}

TEST_F(NewFileTest, AFolderThatCannotBeFlushedIsAnError) {
  HostCallsOf(
      [&] {
        NewFile file(Path("new"), false);
        EXPECT_THAT(ThrownText<IoError>([&] { file.Keep(); }),
                    HasSubstr("cannot flush it"));
      },
      EIO);
  EXPECT_FALSE(fs::exists(Path("new")));
  // Some file systems have nothing to flush.
  HostCallsOf([&] { NewFile(Path("new"), false).Keep(); }, EINVAL);
  EXPECT_TRUE(fs::exists(Path("new")));
}

TEST_F(NewFileTest, OwnerAndPermissionsStay) {
  ASSERT_EQ(chmod(Path("old").c_str(), 0640), 0);
  // Only root can give files away.
  const uid_t owner = geteuid() == 0 ? 1234 : geteuid();
  ASSERT_EQ(chown(Path("old").c_str(), owner, getegid()), 0);
  NewFile(Path("old"), true).Keep();
  EXPECT_EQ(fs::file_size(Path("old")), 0U);
  EXPECT_EQ(Stat("old").st_mode & 07777, 0640U);
  EXPECT_EQ(Stat("old").st_uid, owner);
}

TEST_F(NewFileTest, ASymbolicLinkStaysOne) {
  fs::create_directory(Path("folder"));
  WriteHostFile(Path("folder") / "file", "precious");
  fs::create_symlink("folder/file", Path("link"));
  NewFile(Path("link"), true).Keep();
  EXPECT_TRUE(S_ISLNK(Stat("link").st_mode));
  EXPECT_EQ(fs::file_size(Path("folder") / "file"), 0U);
}

TEST_F(NewFileTest, ExistingFilesAreReplacedOnlyOnRequest) {
  EXPECT_THAT(ThrownText<UsageError>([&] { NewFile(Path("old"), false); }),
              HasSubstr("exists already; --force overwrites it"));
  EXPECT_EQ(fs::file_size(Path("old")), 8U);
  fs::create_directory(Path("folder"));
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  for (const char* name : {"folder", "fifo"}) {
    EXPECT_THROW(NewFile(Path(name), true), UsageError);
  }
  EXPECT_THROW(NewFile(Path("no/such"), true), IoError);
}

TEST_F(NewFileTest, WhatIsReplacedIsLocked) {
  {
    const auto reader =
        FileDevice::Open(Path("old"), FileDevice::Sharing::kExclusive);
    EXPECT_THROW(NewFile(Path("old"), true), ImageLocked);
    EXPECT_THAT(Names(), ElementsAre("old"));
  }
  const auto is_locked = [&] {
    EXPECT_THROW(FileDevice::Open(Path("old"), FileDevice::Sharing::kExclusive),
                 ImageLocked);
  };
  NewFile file(Path("old"), true);
  is_locked();
  file.Keep();
  is_locked();
}

}  // namespace
}  // namespace pellucid
