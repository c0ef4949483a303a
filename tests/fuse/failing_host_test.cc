// The host's disk fails, gets slow, or the image is cut off or replaced, under
// a mount: requests that need it fail with EIO, the log says once where, and
// all others succeed. The disk that fails is itself a FUSE file, so that the
// program meets what a kernel does about it.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/failing_disk.h"
#include "tests/fuse/foreground_fixture.h"
#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;
using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kCluster = 4096;
constexpr uint64_t kL2Reach = 512 * kCluster;  // Guest bytes of an L2 table.
constexpr uint64_t kGuestSize = 8 * kMiB;
constexpr uint64_t kDiskSize = 24 * kMiB;
// Opening an image looks for a LUKS2 header at powers of two, not here.
constexpr uint64_t kBadGuest = 3 * kMiB;
constexpr uint64_t kOffsetMask = 0x00fffffffffffe00;

size_t Count(std::string_view text, std::string_view part) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string_view::npos;
       ++at) {
    ++count;
  }
  return count;
}

class FailingHostTest : public MountTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(MountTest::SetUp());
    WriteHostFile(folder() / "key", "open sesame");
    WriteHostFile(folder() / "plain", "");
    RunTool({PELLUCID_PROGRAM, "create", "--quiet", "--key-file",
             folder() / "key", "--pbkdf2-iterations", "1000", "--cluster-size",
             "4K", folder() / "made", std::to_string(kGuestSize)});
    content_ = Noise(kGuestSize - kMiB, 1);
    WriteHostFile(folder() / "content", content_);
    // The last MiB of the guest stays unallocated.
    RunTool({PELLUCID_PROGRAM, "import", "--key-file", folder() / "key",
             folder() / "content", folder() / "made"});
    const Bytes made = ReadHostFile(folder() / "made");
    ASSERT_LE(made.size(), kDiskSize);
    void* const memory = mmap(nullptr, kDiskSize, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    bytes_ = {static_cast<std::byte*>(memory), kDiskSize};
    std::ranges::copy(made, bytes_.begin());
  }

  void TearDown() override {
    mount_.reset();
    if (server() > 0) EndByUnmount();
    munmap(bytes_.data(), bytes_.size());
    MountTest::TearDown();
  }

  // Puts the image on a disk that does what `faults_` say, and mounts it.
  void MountDisk() {
    set_kernel_writeback(false);
    auto device = std::make_unique<FailingDisk>(bytes_, faults_);
    WritableDevice* const writable = device.get();
    Mount({std::move(device), writable}, MountpointKind::kFile, "rw");
  }
  void MountImage(std::vector<std::string> options = {"--read-only"}) {
    options.insert(options.begin(), "mount");
    options.insert(options.end(), {"--key-file", folder() / "key", disk()});
    StartMount(options);
  }
  // Returns when the file can be used, which is a moment after it is there.
  void StartMount(const std::vector<std::string>& arguments) {
    mount_ = std::make_unique<ForegroundMount>(arguments, plain(),
                                               folder() / "image log");
    for (int i = 0; i < 5000 && fs::file_size(plain()) != kGuestSize; ++i) {
      usleep(2'000);
    }
    ASSERT_EQ(fs::file_size(plain()), kGuestSize);
  }
  void EndImage() {
    EXPECT_EQ(mount_->End(SIGTERM), 0);
    mount_.reset();
  }

  fs::path plain() const { return folder() / "plain"; }
  std::string ImageLog() const {
    std::ifstream file(folder() / "image log");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // Where the tables of the image are.
  uint64_t L2Table(uint64_t guest) const {
    const uint64_t l1 = LoadNumber(bytes_, 40, 8);
    return LoadNumber(bytes_, l1 + guest / kL2Reach * 8, 8) & kOffsetMask;
  }
  uint64_t DataCluster(uint64_t guest) const {
    const uint64_t index = guest % kL2Reach / kCluster;
    return LoadNumber(bytes_, L2Table(guest) + index * 8, 8) & kOffsetMask;
  }
  uint64_t RefcountBlock() const {
    return LoadNumber(bytes_, LoadNumber(bytes_, 48, 8), 8);
  }

  uint64_t CryptoHeader() const {
    constexpr uint64_t kEncryption = 0x0537be77;
    uint64_t at = LoadNumber(bytes_, 100, 4);  // header_length
    for (uint64_t type; (type = LoadNumber(bytes_, at, 4)) != 0;) {
      if (type == kEncryption) return LoadNumber(bytes_, at + 8, 8);
      at += 8 + (LoadNumber(bytes_, at + 4, 4) + 7) / 8 * 8;
    }
    return 0;
  }

  static void FailIn(Faults::Place& place, uint64_t begin, uint64_t length) {
    place.begin = begin;
    place.end = begin + length;
  }

  // Direct reads of one cluster: 0, or the errno.
  int ReadCluster(uint64_t guest) const {
    const OpenFile file(plain(), O_RDONLY | O_DIRECT);
    void* const memory = std::aligned_alloc(kCluster, kCluster);
    const std::unique_ptr<void, void (*)(void*)> aligned(memory, &std::free);
    const ssize_t got =
        pread(file.fd(), memory, kCluster, static_cast<off_t>(guest));
    if (got < 0) return errno;
    EXPECT_EQ(got, static_cast<ssize_t>(kCluster));
    Bytes expected(kCluster);
    if (guest + kCluster <= content_.size()) {
      std::ranges::copy(std::span(content_).subspan(guest, kCluster),
                        expected.begin());
    }
    EXPECT_EQ(std::memcmp(memory, expected.data(), kCluster), 0)
        << "at " << guest;
    return 0;
  }
  // Writes one cluster, and fsync: 0, or the errno of either.
  int WriteCluster(uint64_t guest, uint64_t seed) {
    const OpenFile file(plain(), O_RDWR | O_DIRECT);
    void* const memory = std::aligned_alloc(kCluster, kCluster);
    const std::unique_ptr<void, void (*)(void*)> aligned(memory, &std::free);
    const Bytes bytes = Noise(kCluster, seed);
    std::memcpy(memory, bytes.data(), kCluster);
    const ssize_t put =
        pwrite(file.fd(), memory, kCluster, static_cast<off_t>(guest));
    if (put < 0 || fsync(file.fd()) != 0) return errno;
    if (guest + kCluster <= content_.size()) {
      std::ranges::copy(bytes,
                        content_.begin() + static_cast<ptrdiff_t>(guest));
    }
    return 0;
  }

  // Reads all that is allocated but [begin, end), where reads fail with EIO.
  void ExpectOnlyLost(uint64_t begin, uint64_t end) const {
    for (uint64_t guest = 0; guest < content_.size(); guest += kCluster) {
      const bool lost = guest >= begin && guest < end;
      ASSERT_EQ(ReadCluster(guest), lost ? EIO : 0) << "at " << guest;
    }
  }

  Bytes content_;
  std::span<std::byte> bytes_;
  Faults faults_;
  std::unique_ptr<ForegroundMount> mount_;
};

TEST_F(FailingHostTest, DataThatCannotBeReadFailsByItself) {
  const uint64_t bad = DataCluster(kBadGuest);
  FailIn(faults_.settings().reads, bad, kCluster);
  MountDisk();
  MountImage();
  for (int i = 0; i < 3; ++i) ExpectOnlyLost(kBadGuest, kBadGuest + kCluster);
  const std::string place = fmt::format(
      "{}: cannot read at offset {}: "
      "Input/output error",
      disk().native(), bad);
  EXPECT_EQ(Count(ImageLog(), place), 1U) << ImageLog();
  EXPECT_EQ(Count(ImageLog(), "\n"), 1U) << ImageLog();
  // The disk recovers: nothing of the error is kept.
  faults_.settings().reads.end = 0;
  ExpectOnlyLost(0, 0);
  EndImage();
}

TEST_F(FailingHostTest, TableThatCannotBeReadTakesWhatItMapsWithIt) {
  const uint64_t bad = L2Table(3 * kL2Reach);
  FailIn(faults_.settings().reads, bad, kCluster);
  MountDisk();
  MountImage();
  for (int i = 0; i < 2; ++i) ExpectOnlyLost(3 * kL2Reach, 4 * kL2Reach);
  EXPECT_EQ(Count(ImageLog(), fmt::format("{}: cannot read at offset {}: ",
                                          disk().native(), bad)),
            1U)
      << ImageLog();
  faults_.settings().reads.end = 0;
  ExpectOnlyLost(0, 0);
  EndImage();
}

TEST_F(FailingHostTest, RefcountsThatCannotBeReadKeepNewClustersFromBeing) {
  const uint64_t bad = RefcountBlock();
  FailIn(faults_.settings().reads, bad, kCluster);
  MountDisk();
  MountImage({"-o", "rw"});
  // Needs a cluster.
  EXPECT_EQ(WriteCluster(kGuestSize - kCluster, 2), EIO);
  EXPECT_THAT(ImageLog(),
              HasSubstr(fmt::format(
                  "{}: cannot read at offset {}: ", disk().native(), bad)));
  ExpectOnlyLost(0, 0);
  faults_.settings().reads.end = 0;
  // The same and others succeed when the disk has recovered.
  EXPECT_EQ(WriteCluster(kGuestSize - kCluster, 2), 0);
  EXPECT_EQ(WriteCluster(3 * kMiB, 3), 0);
  ExpectOnlyLost(0, 0);
  EndImage();
}

TEST_F(FailingHostTest, OverwritingNeedsNoRefcounts) {
  FailIn(faults_.settings().reads, RefcountBlock(), kCluster);
  MountDisk();
  MountImage({"-o", "rw"});
  EXPECT_EQ(WriteCluster(3 * kMiB, 3), 0);
  ExpectOnlyLost(0, 0);
  EndImage();
}

TEST_F(FailingHostTest, KeyslotThatCannotBeReadIsTold) {
  const uint64_t header = CryptoHeader();
  ASSERT_NE(header, 0U);
  // LUKS1 has its key material behind the first 4096 bytes.
  FailIn(faults_.settings().reads, header + 4096, 8 * 256 * 1024);
  MountDisk();
  const ProgramResult result =
      RunProgram({PELLUCID_PROGRAM, "mount", "--key-file", folder() / "key",
                  disk(), plain()});
  EXPECT_EQ(result.exit_code, static_cast<int>(ExitCode::kIoError));
  EXPECT_THAT(result.err, HasSubstr(disk().native() + ": cannot read at "
                                                      "offset "));
  // What can be read of the image is still told.
  const ProgramResult info = RunProgram({PELLUCID_PROGRAM, "info", disk()});
  EXPECT_EQ(info.exit_code, 0);
  EXPECT_THAT(info.out, HasSubstr("tables that cannot be read: "));
}

TEST_F(FailingHostTest, DataThatCannotBeWrittenIsToldAndTheRestIsWritten) {
  const uint64_t bad = DataCluster(kBadGuest);
  MountDisk();
  MountImage({"-o", "rw", "--cache", "none"});
  FailIn(faults_.settings().writes, bad, kCluster);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(WriteCluster(kBadGuest, 5), EIO);
  EXPECT_EQ(WriteCluster(2 * kMiB, 6), 0);
  EXPECT_EQ(WriteCluster(kGuestSize - kCluster, 7), 0);
  EXPECT_EQ(Count(ImageLog(), fmt::format("{}: cannot write at offset {}: ",
                                          disk().native(), bad)),
            1U)
      << ImageLog();
  faults_.settings().writes.end = 0;
  EXPECT_EQ(WriteCluster(kBadGuest, 8), 0);
  ExpectOnlyLost(0, 0);
  EndImage();
}

TEST_F(FailingHostTest, ASlowPlaceSlowsNobodyElse) {
  const uint64_t slow = DataCluster(kBadGuest);
  FailIn(faults_.settings().reads, slow, kCluster);
  faults_.settings().reads.milliseconds = 3000;
  MountDisk();
  MountImage();
  const auto start = steady_clock::now();
  std::jthread waits([&] { EXPECT_EQ(ReadCluster(kBadGuest), 0); });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  for (uint64_t guest = 4 * kMiB; guest < 5 * kMiB; guest += kCluster) {
    ASSERT_EQ(ReadCluster(guest), 0);
  }
  EXPECT_LT(steady_clock::now() - start, std::chrono::milliseconds(2900));
  waits.join();
  EXPECT_GE(steady_clock::now() - start, std::chrono::seconds(3));
  EXPECT_EQ(ImageLog(), "");
  EndImage();
}

// On an ordinary file.
class ChangedHostFileTest : public FailingHostTest {
 protected:
  void MountFile(const std::vector<std::string>& options) {
    std::vector<std::string> arguments = {"mount"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    arguments.insert(arguments.end(), {"--key-file", folder() / "key",
                                       (folder() / "made").native()});
    StartMount(arguments);
  }
};

TEST_F(ChangedHostFileTest, WhatWasCutOffIsLostAndTold) {
  MountFile({"--read-only"});
  const uint64_t cut = DataCluster(4 * kMiB);
  // The image was written in order, so nothing in front of it lies behind.
  fs::resize_file(folder() / "made", cut);
  EXPECT_EQ(ReadCluster(0), 0);
  EXPECT_EQ(ReadCluster(2 * kMiB), 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ReadCluster(4 * kMiB), EIO);
  EXPECT_EQ(
      Count(ImageLog(),
            fmt::format("{}: ends at offset {}; it was longer when it was "
                        "opened",
                        (folder() / "made").native(), cut)),
      1U)
      << ImageLog();
  EXPECT_EQ(ReadCluster(2 * kMiB), 0);
  EndImage();
}

TEST_F(ChangedHostFileTest, TheFileThatWasOpenedIsServedWhateverTakesItsName) {
  MountFile({"-o", "rw"});
  WriteHostFile(folder() / "other", Noise(kMiB, 9));
  fs::create_hard_link(folder() / "made", folder() / "link");
  fs::rename(folder() / "other", folder() / "made");
  ExpectOnlyLost(0, 0);
  EXPECT_EQ(WriteCluster(kGuestSize - kCluster, 2), 0);
  EXPECT_EQ(WriteCluster(kMiB, 3), 0);
  ExpectOnlyLost(0, 0);
  EXPECT_EQ(ImageLog(), "");
  EndImage();
  EXPECT_EQ(ReadHostFile(folder() / "made"), Noise(kMiB, 9));
  RunTool({PELLUCID_PROGRAM, "check", folder() / "link"});
  RunTool({PELLUCID_PROGRAM, "export", "--key-file", folder() / "key",
           "--length", std::to_string(content_.size()), folder() / "link",
           folder() / "copy"});
  EXPECT_TRUE(ReadHostFile(folder() / "copy") == content_);
}

}  // namespace
}  // namespace pellucid::fuse
