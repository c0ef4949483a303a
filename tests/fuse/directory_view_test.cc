// Partitions and snapshots as files of a mounted directory. Disks, file systems
// and snapshots are made by other programs, and judged by them: the kernel's
// loop mounts, The Sleuth Kit, qemu-img.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/engine/memory_device.h"
#include "tests/fuse/program_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr char kPassphrase[] = "open sesame";
constexpr uint64_t kMiB = uint64_t{1} << 20;

std::vector<std::string> Names(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

struct stat StatusOf(const fs::path& path) {
  struct stat status = {};
  if (lstat(path.c_str(), &status) != 0) {
    throw std::system_error(errno, std::generic_category(), path.string());
  }
  return status;
}

// The bytes that SEEK_DATA and SEEK_HOLE call data.
uint64_t DataBytes(const fs::path& path) {
  const OpenFile file(path, O_RDONLY);
  const off_t size = StatusOf(path).st_size;
  uint64_t bytes = 0;
  for (off_t at = 0; at < size;) {
    const off_t data = lseek(file.fd(), at, SEEK_DATA);
    if (data < 0) break;
    at = lseek(file.fd(), data, SEEK_HOLE);
    if (at < 0) throw std::runtime_error("SEEK_HOLE fails");
    bytes += static_cast<uint64_t>(at - data);
  }
  return bytes;
}

class DirectoryViewTest : public ProgramTest {
 protected:
  // An empty file system is made in `name` and filled from the folder `files`.
  void MakeExt4(const std::string& name) {
    Tool({"truncate", "-s", "24M", name});
    Tool({"mkfs.ext4", "-q", "-d", "files", name});
  }
  void MakeXfs(const std::string& name) {
    Tool({"truncate", "-s", "300M", name});
    Tool({"mkfs.xfs", "-q", name});
    fs::create_directory(folder() / "mnt");
    Tool({"mount", "-o", "loop", name, "mnt"});
    fs::copy_file(folder() / "files" / "evidence",
                  folder() / "mnt" / "evidence");
    Tool({"umount", "mnt"});
  }
  void MakeNtfs(const std::string& name) {
    Tool({"truncate", "-s", "16M", name});
    Tool({"mkntfs", "-q", "-F", name});
    Tool({"ntfscp", name, "files/evidence", "evidence"});
  }
  void MakeFat(const std::string& name) {
    Tool({"truncate", "-s", "8M", name});
    Tool({"mkfs.fat", "-n", "VOLUME", name});
  }

  // plain.raw with a partition table; `images` by their offset in MiB.
  void MakeDisk(const std::string& size, const std::string& table,
                const std::vector<std::pair<uint64_t, std::string>>& images) {
    Tool({"truncate", "-s", size, "plain.raw"});
    Tool({"sfdisk", "--quiet", "plain.raw"}, table);
    for (const auto& [mib, image] : images) {
      Tool({"dd", "if=" + image, "of=plain.raw", "bs=1M",
            fmt::format("seek={}", mib), "conv=notrunc,sparse", "status=none"});
    }
  }

  // plain.raw in disk.qcow2, encrypted.
  void Encrypt() {
    MakeFile("key", kPassphrase);
    Tool({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "--object",
          "secret,id=s,file=key", "-o",
          "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
          "plain.raw", "disk.qcow2"});
  }
  static std::string ImageOptions() {
    return "driver=qcow2,file.filename=disk.qcow2,encrypt.format=luks,"
           "encrypt.key-secret=s";
  }
  void TakeSnapshot(const std::string& name) {
    Tool({"qemu-img", "snapshot", "--object", "secret,id=s,file=key",
          "--image-opts", "-c", name, ImageOptions()});
  }
  void QemuIo(const std::string& command) {
    const std::string said =
        Tool({"qemu-io", "--object", "secret,id=s,file=key", "--image-opts",
              ImageOptions(), "-c", command});
    ASSERT_THAT(said, HasSubstr("bytes"));
  }
  // What QEMU makes of a state: a file in the folder.
  std::string QemuPlaintext(const std::string& snapshot,
                            const std::string& to) {
    std::vector<std::string> command = {"qemu-img", "convert", "--object",
                                        "secret,id=s,file=key", "--image-opts"};
    if (!snapshot.empty()) {
      command.insert(command.end(), {"-l", "snapshot.name=" + snapshot});
    }
    command.insert(command.end(), {"-O", "raw", ImageOptions(), to});
    Tool(command);
    return to;
  }

  std::string Tool(const std::vector<std::string>& argv,
                   const std::string& input = "") {
    return RunTool(argv, input, folder());
  }

  void MountReadOnly(const std::string& image = "disk.qcow2") {
    MustRun({"mount", "--read-only", "--key-file", "key", image, "directory"});
  }
  void Unmount() { MustRun({"umount", "directory"}); }

  // Is partition `number` of `state` (a path below the mountpoint) the part of
  // `raw` that the table of `raw` says?
  void ExpectPartitionOf(const std::string& raw, const fs::path& state,
                         uint64_t number) {
    const auto table = nlohmann::json::parse(Tool({"sfdisk", "--json", raw}));
    for (const auto& entry : table.at("partitiontable").at("partitions")) {
      const std::string node = entry.at("node");
      if (node != raw + std::to_string(number)) continue;
      const uint64_t offset = entry.at("start").get<uint64_t>() * 512;
      const uint64_t size = entry.at("size").get<uint64_t>() * 512;
      const fs::path file = state / "partitions" / std::to_string(number);
      EXPECT_EQ(StatusOf(file).st_size, static_cast<off_t>(size)) << file;
      Tool({"cmp", fmt::format("--ignore-initial={}:0", offset),
            fmt::format("--bytes={}", size), raw, file.string()});
      return;
    }
    ADD_FAILURE() << raw << " has no partition " << number;
  }

  // st_blocks and the holes of a file agree, and what is a hole costs nothing.
  static void ExpectTrueExtents(const fs::path& file) {
    // The count may take a while.
    uint64_t blocks = 0;
    const uint64_t bytes = DataBytes(file);
    for (int tries = 50; tries > 0; --tries) {
      blocks = static_cast<uint64_t>(StatusOf(file).st_blocks);
      if (blocks == bytes / 512) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    EXPECT_EQ(blocks, bytes / 512) << file;
  }

  // The content of `evidence` in the file system of a partition.
  Bytes LoopRead(const fs::path& partition, const std::string& options) {
    fs::create_directory(folder() / "mnt");
    Tool({"mount", "-o", "loop,ro" + options, partition.string(), "mnt"});
    Bytes content = ReadHostFile(folder() / "mnt" / "evidence");
    Tool({"umount", "mnt"});
    return content;
  }

  void MakeFiles(uint64_t seed) {
    fs::remove_all(folder() / "files");
    fs::create_directory(folder() / "files");
    WriteHostFile(folder() / "files" / "evidence", Noise(1 << 20, seed));
    WriteHostFile(folder() / "files" / "gone", Noise(100'000, seed + 1));
  }
};

TEST_F(DirectoryViewTest, GptPartitionsOfTheDiskAndOfItsSnapshots) {
  MakeFiles(1);
  MakeExt4("old.ext4");
  Tool({"debugfs", "-w", "-R", "rm gone", "old.ext4"});
  MakeXfs("xfs");
  MakeNtfs("ntfs");
  MakeFat("fat");
  MakeDisk("352M",
           "label: gpt\n"
           "start=1MiB, size=8MiB, name=\"EFI system\"\n"
           "start=9MiB, size=24MiB, name=\"root\"\n"
           "start=33MiB, size=300MiB, name=\"root\"\n"
           "start=333MiB, size=16MiB\n",
           {{1, "fat"}, {9, "old.ext4"}, {33, "xfs"}, {333, "ntfs"}});
  Encrypt();
  TakeSnapshot("before");
  MakeFiles(3);
  MakeExt4("new.ext4");
  QemuIo(fmt::format("write -s new.ext4 {} {}", 9 * kMiB, 24 * kMiB));
  TakeSnapshot("a/b");
  // The table as well: afterwards the disk has none.
  QemuIo("write -P 0xaa 0 1M");
  QemuIo(fmt::format("write -z {} 1M", 351 * kMiB));

  MountReadOnly();
  EXPECT_THAT(Names(directory()), ElementsAre("disk", "snapshots"));
  const fs::path snapshots = directory() / "snapshots";
  EXPECT_THAT(Names(snapshots), ElementsAre("a%2Fb", "before"));
  EXPECT_FALSE(fs::exists(directory() / "partitions"));
  Tool({"cmp", QemuPlaintext("", "now.raw"), disk().string()});
  const nlohmann::json info = nlohmann::json::parse(
      Tool({"qemu-img", "info", "-U", "--output=json", "disk.qcow2"}));
  for (const char* name : {"before", "a/b"}) {
    const fs::path state = snapshots / (name[0] == 'a' ? "a%2Fb" : name);
    EXPECT_THAT(Names(state), ElementsAre("disk", "partitions"));
    EXPECT_THAT(Names(state / "partitions"),
                ElementsAre("1", "2", "3", "4", "by-label"));
    EXPECT_THAT(Names(state / "partitions" / "by-label"),
                ElementsAre("EFI system", "root", "root%~3"));
    EXPECT_EQ(fs::read_symlink(state / "partitions" / "by-label" / "root%~3"),
              "../3");
    const std::string raw = QemuPlaintext(name, "snapshot.raw");
    Tool({"cmp", raw, (state / "disk").string()});
    for (const unsigned number : {1U, 2U, 3U, 4U}) {
      ExpectPartitionOf(raw, state, number);
      ExpectTrueExtents(state / "partitions" / std::to_string(number));
    }
    ExpectTrueExtents(state / "disk");
    for (const auto& snapshot : info.at("snapshots")) {
      if (snapshot.at("name") != name) continue;
      for (const fs::path& file :
           {state, state / "disk", state / "partitions" / "2"}) {
        const struct stat status = StatusOf(file);
        EXPECT_EQ(status.st_mtim.tv_sec, snapshot.at("date-sec")) << file;
        EXPECT_EQ(status.st_mtim.tv_nsec, snapshot.at("date-nsec")) << file;
      }
    }
    // The Sleuth Kit sees the same in the views as in QEMU's plaintext.
    EXPECT_EQ(Tool({"mmls", (state / "disk").string()}), Tool({"mmls", raw}));
    for (const auto& [number, mib] :
         std::vector<std::pair<int, int>>{{1, 1}, {2, 9}, {4, 333}}) {
      const std::string view =
          (state / "partitions" / std::to_string(number)).string();
      const std::string offset = std::to_string(mib * 2048);
      EXPECT_EQ(Tool({"fsstat", view}), Tool({"fsstat", "-o", offset, raw}));
      const std::string files = Tool({"fls", "-r", "-p", view});
      EXPECT_EQ(files, Tool({"fls", "-r", "-p", "-o", offset, raw}));
      EXPECT_EQ(files.find("evidence") != std::string::npos, number != 1);
    }
    const uint64_t seed = name[0] == 'a' ? 3 : 1;
    const Bytes evidence = Noise(1 << 20, seed);
    EXPECT_EQ(LoopRead(state / "partitions" / "2", ""), evidence);
    EXPECT_EQ(LoopRead(state / "partitions" / "3", ",norecovery"),
              Noise(1 << 20, 1));
  }
  // A deleted file is still listed, and another by its inode can be had.
  const std::string root = (snapshots / "before/partitions/2").string();
  const std::string deleted = Tool({"fls", "-r", "-p", "-d", root});
  EXPECT_THAT(deleted, HasSubstr("gone"));
  const std::string listed = Tool({"fls", "-F", root});
  const size_t found = listed.find(":\tevidence");
  ASSERT_NE(found, std::string::npos) << listed;
  const size_t begin = listed.rfind(' ', found) + 1;
  const std::string evidence =
      Tool({"icat", root, listed.substr(begin, found - begin)});
  EXPECT_EQ(Sha256(std::as_bytes(std::span(evidence))),
            Sha256(Noise(1 << 20, 1)));
  Unmount();
}

TEST_F(DirectoryViewTest, LogicalPartitionsOfAnMbr) {
  MakeFiles(5);
  MakeExt4("ext4");
  MakeNtfs("ntfs");
  MakeFat("fat");
  MakeDisk("64M",
           "label: dos\nstart=1MiB, size=24MiB\nstart=26MiB, type=5\n"
           "start=27MiB, size=16MiB, type=7\nstart=44MiB, size=8MiB, type=c\n",
           {{1, "ext4"}, {27, "ntfs"}, {44, "fat"}});
  Encrypt();
  MountReadOnly();
  EXPECT_THAT(Names(directory()), ElementsAre("disk", "partitions"));
  EXPECT_FALSE(fs::exists(directory() / "snapshots"));
  EXPECT_THAT(Names(directory() / "partitions"), ElementsAre("1", "5", "6"));
  for (const unsigned number : {1U, 5U, 6U}) {
    ExpectPartitionOf("plain.raw", directory(), number);
    ExpectTrueExtents(directory() / "partitions" / std::to_string(number));
  }
  for (const char* name : {"0", "2", "01", "7", "-1", " 1", "4294967297"}) {
    EXPECT_FALSE(fs::exists(directory() / "partitions" / name)) << name;
  }
  EXPECT_EQ(LoopRead(directory() / "partitions" / "1", ""), Noise(1 << 20, 5));
  EXPECT_THAT(Tool({"fls", (directory() / "partitions" / "5").string()}),
              HasSubstr("evidence"));
  EXPECT_THAT(Tool({"fsstat", (directory() / "partitions" / "6").string()}),
              HasSubstr("VOLUME"));
  EXPECT_EQ(StatusOf(directory() / "partitions" / "5").st_mtim.tv_nsec,
            StatusOf(disk()).st_mtim.tv_nsec);
  Unmount();
}

// As parted and mmls have them.
TEST_F(DirectoryViewTest, PartitionsOfAnAppleMap) {
  MakeFiles(7);
  MakeExt4("ext4");
  Tool({"truncate", "-s", "64M", "plain.raw"});
  Tool({"parted",  "--script", "plain.raw", "mklabel", "mac",   "mkpart",
        "primary", "ext2",     "1MiB",      "25MiB",   "name",  "2",
        "root",    "mkpart",   "primary",   "hfs",     "32MiB", "40MiB",
        "name",    "3",        "spare"});
  Tool({"dd", "if=ext4", "of=plain.raw", "bs=1M", "seek=1",
        "conv=notrunc,sparse", "status=none"});
  Encrypt();
  MountReadOnly();
  const fs::path partitions = directory() / "partitions";
  // 1 is the map itself, 4 to 6 are free space.
  EXPECT_THAT(Names(partitions),
              ElementsAre("1", "2", "3", "4", "5", "6", "by-label"));
  EXPECT_THAT(
      Names(partitions / "by-label"),
      ElementsAre("Apple", "Extra", "Extra%~5", "Extra%~6", "root", "spare"));
  EXPECT_EQ(fs::read_symlink(partitions / "by-label" / "root"), "../2");
  EXPECT_EQ(StatusOf(partitions / "2").st_size, off_t{24} << 20);
  EXPECT_EQ(StatusOf(partitions / "3").st_size, off_t{8} << 20);
  EXPECT_EQ(LoopRead(partitions / "2", ""), Noise(1 << 20, 7));
  EXPECT_EQ(Tool({"mmls", disk().string()}), Tool({"mmls", "plain.raw"}));
  Unmount();
}

TEST_F(DirectoryViewTest, PartitionsOfABsdLabelInAnMbr) {
  MakeFiles(9);
  MakeExt4("ext4");
  MakeDisk("64M", "label: dos\nsize=4MiB\nstart=10MiB, size=40MiB, type=a5\n",
           {{12, "ext4"}});
  RunProgram({"fdisk", "plain.raw"}, "b\ny\nn\na\n24576\n+24M\nt\na\n7\nw\n",
             folder());
  Encrypt();
  MountReadOnly();
  const fs::path partitions = directory() / "partitions";
  EXPECT_THAT(Names(partitions), ElementsAre("1", "2", "5"));
  EXPECT_EQ(LoopRead(partitions / "5", ""), Noise(1 << 20, 9));
  Unmount();
}

TEST_F(DirectoryViewTest, HostileTablesHarmNobody) {
  MakeFile("key", kPassphrase);
  Tool({"truncate", "-s", "8M", "plain.raw"});
  // One partition reaches far behind the end, one begins there, and the chain
  // of logical ones is a loop.
  std::fstream file(folder() / "plain.raw",
                    std::ios::in | std::ios::out | std::ios::binary);
  const auto entry = [&](uint64_t sector, int index, char type, uint32_t first,
                         uint32_t sectors) {
    const auto little = [](uint32_t value) {
      std::string text;
      for (int i = 0; i < 4; ++i) text += static_cast<char>(value >> (8 * i));
      return text;
    };
    file.seekp(static_cast<off_t>(sector * 512 + 446) + 16 * index);
    file << std::string(4, '\0') << type << std::string(3, '\0')
         << little(first) << little(sectors);
    file.seekp(static_cast<off_t>(sector * 512 + 510));
    file << "\x55\xaa";
  };
  entry(0, 0, '\x83', 2048, 0xffffffff);
  entry(0, 1, '\x83', 0x7fffffff, 1);
  entry(0, 2, '\x05', 100, 1000);
  entry(100, 0, '\x83', 10, 20);
  entry(100, 1, '\x05', 0, 1000);
  file.close();
  Tool({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "plain.raw",
        "disk.qcow2"});
  MountReadOnly();
  EXPECT_THAT(Names(directory() / "partitions"), ElementsAre("1", "5"));
  EXPECT_EQ(StatusOf(directory() / "partitions" / "1").st_size,
            static_cast<off_t>(7 * kMiB));
  EXPECT_EQ(ReadHostFile(directory() / "partitions" / "1"), Bytes(7 * kMiB));
  EXPECT_EQ(StatusOf(directory() / "partitions" / "5").st_size, 20 * 512);
  Unmount();
}

TEST_F(DirectoryViewTest, TheViewsCannotBeWritten) {
  MakeFile("key", kPassphrase);
  MakeDisk("8M", "label: gpt\nsize=2MiB, name=\"a\"\n", {});
  Encrypt();
  TakeSnapshot("first");
  // A mount that is written: its own partitions would be seen as they were.
  MustRun({"mount", "--key-file", "key", "disk.qcow2", "directory"});
  EXPECT_THAT(Names(directory()), ElementsAre("disk", "snapshots"));
  EXPECT_FALSE(fs::exists(directory() / "partitions"));
  const fs::path state = directory() / "snapshots" / "first";
  for (const fs::path& path : {state / "disk", state / "partitions" / "1"}) {
    const OpenFile writer(path, O_RDWR);
    EXPECT_EQ(writer.fd(), -1) << path;
    EXPECT_EQ(errno, EROFS) << path;
    EXPECT_EQ(truncate(path.c_str(), 0), -1) << path;
    EXPECT_EQ(StatusOf(path).st_mode & 0777, 0400U) << path;
  }
  EXPECT_EQ(mkdir((state / "new").c_str(), 0700), -1);
  EXPECT_EQ(unlink((state / "disk").c_str()), -1);
  // What is written to the disk does not reach the snapshot, whoever has read
  // it before.
  const std::string before = Tool({"sha256sum", (state / "disk").string()});
  {
    const OpenFile snapshot(state / "disk", O_RDONLY);
    const OpenFile writer(disk(), O_RDWR);
    const Bytes noise = Noise(3 * kMiB, 9);
    ASSERT_EQ(pwrite(writer.fd(), noise.data(), noise.size(), 0),
              static_cast<ssize_t>(noise.size()));
    ASSERT_EQ(fsync(writer.fd()), 0);
    // What the kernel has kept of it is to be read again.
    ASSERT_EQ(posix_fadvise(snapshot.fd(), 0, 0, POSIX_FADV_DONTNEED), 0);
  }
  EXPECT_EQ(Tool({"sha256sum", (state / "disk").string()}), before);
  Tool({"cmp", "plain.raw", (state / "disk").string()});
  Unmount();
}

TEST_F(DirectoryViewTest, NamesOfSnapshotsCannotLeadAway) {
  MakeFile("key", kPassphrase);
  Tool({"truncate", "-s", "1M", "plain.raw"});
  Encrypt();
  const std::vector<std::string> names = {
      "..", ".", "x/../../y", "new\nline", "100%", std::string(300, 'n')};
  for (const std::string& name : names) TakeSnapshot(name);
  MountReadOnly();
  EXPECT_THAT(
      Names(directory() / "snapshots"),
      UnorderedElementsAre("%2E%2E", "%2E", "x%2F..%2F..%2Fy", "new%0Aline",
                           "100%25", testing::StartsWith("nnn")));
  for (const std::string& name : Names(directory() / "snapshots")) {
    const fs::path state = directory() / "snapshots" / name;
    EXPECT_THAT(Names(state), ElementsAre("disk"));
    EXPECT_EQ(ReadHostFile(state / "disk"), Bytes(kMiB));
  }
  // "." and ".." are what they are everywhere.
  EXPECT_EQ(StatusOf(directory() / "snapshots" / "..").st_ino,
            StatusOf(directory()).st_ino);
  Unmount();
}

TEST_F(DirectoryViewTest, ThousandsOfSnapshotsAreListedOnceEach) {
  constexpr uint64_t kCount = 5000;
  MakeFile("key", "");
  Tool({"qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "1M"});
  // Each is the active state.
  Bytes image = ReadHostFile(folder() / "disk.qcow2");
  image.resize((image.size() + 65535) / 65536 * 65536);
  const uint64_t table = image.size();
  std::set<std::string> expected;
  for (uint64_t i = 0; i < kCount; ++i) {
    const uint64_t at = image.size();
    const std::string name = fmt::format("{:08}", i);
    expected.insert(name);
    image.resize(at + 40 + name.size());
    StoreNumber(image, at, 8, LoadNumber(image, 40, 8));
    StoreNumber(image, at + 8, 4, LoadNumber(image, 36, 4));
    StoreNumber(image, at + 14, 2, name.size());
    StoreNumber(image, at + 16, 4, i);
    std::ranges::copy(std::as_bytes(std::span(name)),
                      image.begin() + static_cast<ptrdiff_t>(at + 40));
  }
  StoreNumber(image, 60, 4, kCount);
  StoreNumber(image, 64, 8, table);
  WriteHostFile(folder() / "disk.qcow2", image);
  MountReadOnly();
  const std::vector<std::string> names = Names(directory() / "snapshots");
  EXPECT_EQ(names.size(), kCount);
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()), expected);
  const fs::path last = directory() / "snapshots" / names.back();
  EXPECT_EQ(StatusOf(last / "disk").st_mtim.tv_sec,
            static_cast<time_t>(kCount - 1));
  EXPECT_EQ(ReadHostFile(last / "disk"), Bytes(kMiB));
  Unmount();
}

// The most memory that the server has had so far.
uint64_t PeakKiB(pid_t server) {
  std::ifstream status(fmt::format("/proc/{}/status", server));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6));
  }
  throw std::runtime_error("no VmHWM");
}

TEST_F(DirectoryViewTest, ManySnapshotsShareOneCache) {
  // 64 GiB with all clusters allocated have 8 MiB of L2 tables. Each snapshot
  // gets a table of its own, by a write, for only the first of them.
  MakeFile("key", "");
  Tool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
        "preallocation=metadata", "disk.qcow2", "64G"});
  constexpr int kSnapshots = 20;
  for (int i = 0; i < kSnapshots; ++i) {
    Tool({"qemu-img", "snapshot", "-c", std::to_string(i), "disk.qcow2"});
    Tool({"qemu-io", "-f", "qcow2", "-c", fmt::format("write -P {} 0 64k", i),
          "disk.qcow2"});
  }
  MountReadOnly();
  const std::string server(Tool(
      {"getfattr", "--only-values", "-n", "user.pellucid.pid", "directory"}));
  const auto pid = static_cast<pid_t>(std::stol(server));
  DataBytes(directory() / "snapshots" / "0" / "disk");
  const uint64_t with_one = PeakKiB(pid);
  for (int i = 0; i < kSnapshots; ++i) {
    const fs::path file =
        directory() / "snapshots" / std::to_string(i) / "disk";
    DataBytes(file);
    const OpenFile open(file, O_RDONLY);
    char first = 0;
    ASSERT_EQ(pread(open.fd(), &first, 1, 0), 1);
    EXPECT_EQ(first, i == 0 ? 0 : i - 1) << i;
  }
  // A cache of its own would be 8 MiB for each.
  EXPECT_LT(PeakKiB(pid), with_one + 16 * 1024);
  Unmount();
}

class DamagedTableTest : public MountTest {
 protected:
  // A disk whose first sector says that there is a GPT, which there is not.
  static std::unique_ptr<MemoryDevice> MakeDisk() {
    Bytes bytes(kMiB);
    bytes[450] = std::byte{0xee};
    bytes[454] = bytes[458] = std::byte{1};
    bytes[510] = std::byte{0x55};
    bytes[511] = std::byte{0xaa};
    return std::make_unique<MemoryDevice>(std::move(bytes));
  }
};

TEST_F(DamagedTableTest, AnEmptyFolderAndTheLogTellOfIt) {
  Mount(MakeDisk(), MountpointKind::kDirectory);
  EXPECT_THAT(Names(mountpoint()), ElementsAre("disk", "partitions"));
  EXPECT_THAT(Names(mountpoint() / "partitions"), IsEmpty());
  EXPECT_THAT(Log(), HasSubstr("partition table of disk"));
  EXPECT_THAT(Log(), HasSubstr("neither copy can be used"));
  EXPECT_EQ(EndByUnmount(), 0);
}

TEST_F(DamagedTableTest, OneThatCannotBeReadHidesNothingElse) {
  auto disk = MakeDisk();
  disk->FailReads(0, 512);
  Mount(std::move(disk), MountpointKind::kDirectory);
  EXPECT_THAT(Names(mountpoint()), ElementsAre("disk"));
  struct stat status = {};
  EXPECT_EQ(stat((mountpoint() / "partitions").c_str(), &status), -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_THAT(Log(), HasSubstr("reading the partition table of disk"));
  EXPECT_EQ(StatusOf(mountpoint() / "disk").st_size, static_cast<off_t>(kMiB));
  EXPECT_EQ(EndByUnmount(), 0);
}

}  // namespace
}  // namespace pellucid::fuse
