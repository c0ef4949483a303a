// Evidence must not change: no byte and no timestamp of any file that is
// opened.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include "engine/errors.h"
#include "engine/open_image.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/qemu_images_fixture.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;

// What stat(2) and the content say of a file.
struct FileState {
  std::vector<int64_t> status;
  std::string sha256;

  bool operator==(const FileState&) const = default;
};

std::vector<int64_t> StatusOf(const fs::path& path) {
  struct stat s;
  if (stat(path.c_str(), &s) != 0) {
    throw std::system_error(errno, std::generic_category(), path);
  }
  return {
      s.st_atim.tv_sec,  s.st_atim.tv_nsec, s.st_mtim.tv_sec,
      s.st_mtim.tv_nsec, s.st_ctim.tv_sec,  s.st_ctim.tv_nsec,
      s.st_size,         s.st_blocks,       static_cast<int64_t>(s.st_mode)};
}

// Makes the next ordinary read change the access time: relatime updates one
// that is older than the modification.
void AgeAccessTime(const fs::path& path) {
  const timespec times[] = {{.tv_sec = 1000000000, .tv_nsec = 123},
                            {.tv_sec = 0, .tv_nsec = UTIME_OMIT}};
  if (utimensat(AT_FDCWD, path.c_str(), times, 0) != 0) {
    throw std::system_error(errno, std::generic_category(), path);
  }
}

class ReadOnlyTest : public ::testing::Test {
 protected:
  // The access times are aged after the hashes are taken.
  void Remember(const std::vector<fs::path>& files) {
    for (const fs::path& file : files) {
      before_[file].sha256 = Sha256(ReadHostFile(file));
      AgeAccessTime(file);
      before_[file].status = StatusOf(file);
    }
  }

  void ExpectUnchanged() {
    for (const auto& [file, state] : before_) {
      EXPECT_EQ(StatusOf(file), state.status) << file;
      EXPECT_EQ(Sha256(ReadHostFile(file)), state.sha256) << file;
    }
  }

  std::map<fs::path, FileState> before_;
  QemuImages images_;
};

TEST_F(ReadOnlyTest, OrdinaryReadsWouldChangeTheAccessTimeHere) {
  // Or the other tests could not fail.
  const fs::path file = images_.source(0);
  AgeAccessTime(file);
  const auto before = StatusOf(file);
  ReadHostFile(file);
  EXPECT_NE(StatusOf(file), before)
      << "mount the temporary folder without noatime";
}

class ReadOnlyChainTest : public ReadOnlyTest {
 protected:
  void SetUp() override {
    QemuImage base;
    base.name = "base.qcow2";
    base.encryption = "aes";
    base.virtual_size = 1 << 20;
    QemuImage top = base;
    top.name = "top.qcow2";
    top.encryption = "luks";
    top.backing = base.name;
    for (const QemuImage& image : {base, top}) {
      images_.Create(image);
      images_.Write(image.name, ScatteredWrites(images_, image.virtual_size,
                                                image.cluster_size, 10, 1));
    }
  }

  void UseEverything() {
    const auto device = images_.Open("top.qcow2");
    const Bytes content = ReadAll(*device);
    CheckExtents(*device, content);
    DescribeImage(images_.options("top.qcow2"));
  }
};

TEST_F(ReadOnlyChainTest, ImageAndBackingFilesStayAsTheyAre) {
  Remember({images_.path("top.qcow2"), images_.path("base.qcow2")});
  UseEverything();
  ExpectUnchanged();
}

TEST_F(ReadOnlyChainTest, DirtyImageIsNotRepaired) {
  const fs::path path = images_.path("top.qcow2");
  Bytes image = ReadHostFile(path);
  StoreNumber(image, 72, 8, 1);
  WriteHostFile(path, image);
  Remember({path, images_.path("base.qcow2")});
  UseEverything();
  ExpectUnchanged();
}

TEST_F(ReadOnlyChainTest, FilesWithoutWritePermissionDo) {
  for (const char* name : {"top.qcow2", "base.qcow2"}) {
    fs::permissions(images_.path(name), fs::perms(0444));
  }
  Remember({images_.path("top.qcow2"), images_.path("base.qcow2")});
  UseEverything();
  ExpectUnchanged();
}

TEST_F(ReadOnlyChainTest, RefusedPassphraseChangesNothingEither) {
  Remember({images_.path("top.qcow2"), images_.path("base.qcow2")});
  EXPECT_THROW(OpenDevice(images_.options("top.qcow2"), "wrong").get(), Error);
  ExpectUnchanged();
}

TEST_F(ReadOnlyTest, WritableOpenThatWritesNothingChangesNothing) {
  const fs::path key = images_.path("key");
  const fs::path volume = images_.path("volume");
  WriteHostFile(key, "key");
  WriteHostFile(volume, Bytes(4 << 20));
  RunTool({"cryptsetup", "luksFormat", "-q", "--type", "luks1",
           "--pbkdf-force-iterations", "1000", "--key-file", key, volume});
  Remember({volume});
  {
    OpenOptions options;
    options.image = volume;
    options.writable = true;
    KnownPassphrases passphrases({"key"});
    const OpenedImage opened = OpenImage(options, passphrases);
    ReadAll(*opened.device);
    opened.writable->Flush();
  }
  ExpectUnchanged();
}

TEST_F(ReadOnlyTest, DetachedHeaderAndDataFileStayAsTheyAre) {
  const fs::path header = images_.path("header");
  const fs::path key = images_.path("key");
  WriteHostFile(key, "key");
  WriteHostFile(images_.path("device"), Bytes(1 << 20));
  RunTool({"cryptsetup", "luksFormat", "-q", "--type", "luks1",
           "--pbkdf-force-iterations", "1000", "--key-file", key, "--header",
           header, images_.path("device")});
  const fs::path data = images_.path("data");
  QemuImage payload;
  payload.name = "payload.qcow2";
  payload.encryption = "none";
  payload.virtual_size = 1 << 20;
  payload.more_options = {"data_file=" + data.string()};
  images_.Create(payload);
  images_.Write(payload.name, ScatteredWrites(images_, payload.virtual_size,
                                              payload.cluster_size, 10, 1));
  Remember({header, data, images_.path(payload.name)});
  OpenOptions options = images_.options(payload.name);
  options.header = header;
  ReadAll(*OpenDevice(options, "key"));
  DescribeImage(options);
  ExpectUnchanged();
}

// The exit code of a child that runs as a user who owns nothing, with `body`.
int RunAsNobody(const std::function<int()>& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    int exit_code = 99;
    constexpr uid_t kNobody = 65534;
    if (setgid(kNobody) == 0 && setuid(kNobody) == 0) {
      try {
        exit_code = body();
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
      }
    }
    _exit(exit_code);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

// Who does not own the file may not ask the kernel to leave the access time
// alone; the rest must hold all the same.
TEST_F(ReadOnlyTest, FileOfAnotherUserIsReadAndOnlyItsAccessTimeMayChange) {
  fs::path file = "/etc/passwd";
  if (getuid() == 0) {
    file = images_.path("foreign.raw");
    WriteHostFile(file, Noise(100000, 1));
    fs::permissions(file, fs::perms(0444));
    fs::permissions(images_.folder(), fs::perms(0755));
    AgeAccessTime(file);
  }
  const std::string sha256 = Sha256(ReadHostFile(file));
  const std::vector<int64_t> before = StatusOf(file);
  const auto read = [&] {
    OpenOptions options;
    options.image = file;
    options.format = ContainerFormat::kRaw;
    return Sha256(ReadAll(*OpenDevice(options))) == sha256 ? 0 : 1;
  };
  EXPECT_EQ(getuid() == 0 ? RunAsNobody(read) : read(), 0);
  const std::vector<int64_t> after = StatusOf(file);
  constexpr size_t kFirstAfterAccessTime = 2;
  EXPECT_EQ(
      std::vector<int64_t>(before.begin() + kFirstAfterAccessTime,
                           before.end()),
      std::vector<int64_t>(after.begin() + kFirstAfterAccessTime, after.end()));
}

TEST_F(ReadOnlyTest, FileThatMayOnlyBeReadCannotBeOpenedForWriting) {
  const fs::path file = images_.path("protected.raw");
  WriteHostFile(file, Noise(1000, 1));
  fs::permissions(file, fs::perms(0444));
  fs::permissions(images_.folder(), fs::perms(0755));
  const auto open = [&] {
    OpenOptions options;
    options.image = file;
    options.writable = true;
    try {
      OpenDevice(options);
    } catch (const IoError& error) {
      const std::string text = error.what();
      return text.find("--read-only") != std::string::npos ? 0 : 2;
    }
    return 1;
  };
  EXPECT_EQ(getuid() == 0 ? RunAsNobody(open) : open(), 0);
}

TEST_F(ReadOnlyTest, FileThatMayNotBeReadIsAnIoError) {
  const fs::path file = images_.path("secret.raw");
  WriteHostFile(file, Noise(1000, 1));
  fs::permissions(file, fs::perms::none);
  fs::permissions(images_.folder(), fs::perms(0755));
  const auto open = [&] {
    OpenOptions options;
    options.image = file;
    try {
      OpenDevice(options);
    } catch (const IoError& error) {
      return error.host_errno() == EACCES ? 0 : 2;
    }
    return 1;
  };
  EXPECT_EQ(getuid() == 0 ? RunAsNobody(open) : open(), 0);
}

}  // namespace
}  // namespace pellucid
