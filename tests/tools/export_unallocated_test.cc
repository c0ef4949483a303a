// What an image holds but no longer refers to.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;

constexpr uint64_t kCluster = 65536;

class ExportUnallocatedTest : public EncryptedImageTest {
 protected:
  std::string Tool(const std::vector<std::string>& argv) {
    return RunTool(argv, "", folder_.path());
  }
  // qemu-img snapshot or qemu-io on the encrypted image.
  void Qemu(std::vector<std::string> program,
            const std::vector<std::string>& what) {
    program.insert(program.end(), {"--object", "secret,id=s,file=" + KeyFile(),
                                   "--image-opts"});
    program.insert(program.end(), what.begin(), what.end());
    // Otherwise qemu-img makes a hole of what it frees.
    program.push_back(
        "driver=qcow2,file.filename=disk.qcow2,encrypt.format=luks,"
        "encrypt.key-secret=s,pass-discard-snapshot=off");
    Tool(program);
  }
  // Data is written, kept by a snapshot, overwritten, and the snapshot deleted.
  void LeaveRemains() {
    MakeImage("disk.qcow2");
    Qemu({"qemu-img", "snapshot"}, {"-c", "old"});
    Qemu({"qemu-io"},
         {"-c", fmt::format("write -P 0x55 {} {}", kDataOffset, kDataLength)});
    Qemu({"qemu-img", "snapshot"}, {"-d", "old"});
  }
  // Where in `bytes`, at a multiple of a cluster, `cluster` stands.
  static std::optional<uint64_t> Find(const Bytes& bytes,
                                      std::span<const std::byte> cluster) {
    for (uint64_t at = 0; at + kCluster <= bytes.size(); at += kCluster) {
      if (std::memcmp(bytes.data() + at, cluster.data(), kCluster) == 0) {
        return at;
      }
    }
    return std::nullopt;
  }
};

TEST_F(ExportUnallocatedTest, ADeletedSnapshotIsFound) {
  LeaveRemains();
  const Bytes image = ReadHostFile(folder_ / "disk.qcow2");
  const ProgramResult result =
      RunPellucid({"export", "--unallocated", "--list", "runs", "--key-file",
                   KeyFile(), "disk.qcow2", "remains"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(ReadHostFile(folder_ / "disk.qcow2"), image);
  const Bytes remains = ReadHostFile(folder_ / "remains");
  ASSERT_EQ(remains.size(), image.size());
  const Bytes old = Plaintext();
  std::vector<uint64_t> places;
  for (uint64_t at = 0; at < kDataLength; at += kCluster) {
    const auto place =
        Find(remains, std::span(old).subspan(kDataOffset + at, kCluster));
    ASSERT_TRUE(place) << at;
    places.push_back(*place);
  }
  // What is in use is not among them.
  const Bytes now(kCluster, std::byte{0x55});
  EXPECT_FALSE(Find(remains, now));
  // The list says where, in the image's own file.
  std::ifstream list(folder_ / "runs");
  std::vector<bool> listed(image.size() / kCluster + 1);
  uint64_t begin = 0;
  uint64_t length = 0;
  uint64_t end = 0;
  while (list >> begin >> length) {
    EXPECT_GT(length, 0U);
    EXPECT_TRUE(end == 0 || begin > end);
    end = begin + length;
    ASSERT_LE(end, image.size());
    for (uint64_t at = begin; at < end; at += kCluster) {
      listed[at / kCluster] = true;
    }
  }
  for (const uint64_t place : places) EXPECT_TRUE(listed[place / kCluster]);
  for (uint64_t at = 0; at + kCluster <= remains.size(); at += kCluster) {
    if (listed[at / kCluster]) continue;
    EXPECT_FALSE(
        std::any_of(remains.begin() + static_cast<ptrdiff_t>(at),
                    remains.begin() + static_cast<ptrdiff_t>(at + kCluster),
                    [](std::byte byte) { return byte != std::byte{0}; }))
        << at;
  }
}

TEST_F(ExportUnallocatedTest, AnImageThatNeverLostAnythingHasNothing) {
  MakeImage("disk.qcow2");
  ASSERT_EQ(RunPellucid({"export", "--unallocated", "--list", "runs",
                         "--key-file", KeyFile(), "disk.qcow2", "remains"})
                .exit_code,
            0);
  const Bytes remains = ReadHostFile(folder_ / "remains");
  EXPECT_TRUE(std::ranges::all_of(
      remains, [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST_F(ExportUnallocatedTest, WithoutDecryptionItIsWhatIsStored) {
  LeaveRemains();
  ASSERT_EQ(RunPellucid({"export", "--unallocated", "--encryption", "none",
                         "disk.qcow2", "stored"})
                .exit_code,
            0);
  const Bytes image = ReadHostFile(folder_ / "disk.qcow2");
  const Bytes stored = ReadHostFile(folder_ / "stored");
  ASSERT_EQ(stored.size(), image.size());
  uint64_t clusters = 0;
  for (uint64_t at = 0; at + kCluster <= image.size(); at += kCluster) {
    const std::span part = std::span(stored).subspan(at, kCluster);
    if (std::ranges::all_of(part,
                            [](std::byte b) { return b == std::byte{0}; })) {
      continue;
    }
    ++clusters;
    EXPECT_TRUE(
        std::ranges::equal(part, std::span(image).subspan(at, kCluster)))
        << at;
  }
  EXPECT_GE(clusters, kDataLength / kCluster);
}

TEST_F(ExportUnallocatedTest, SectorsThatWereNeverWrittenAreZeros) {
  MakeImage("disk.qcow2");
  // A cluster behind the others, which is not a hole.
  Bytes image = ReadHostFile(folder_ / "disk.qcow2");
  image.resize((image.size() + kCluster - 1) / kCluster * kCluster + kCluster);
  WriteHostFile(folder_ / "disk.qcow2", image);
  ASSERT_EQ(RunPellucid({"export", "--unallocated", "--key-file", KeyFile(),
                         "disk.qcow2", "remains"})
                .exit_code,
            0);
  const Bytes remains = ReadHostFile(folder_ / "remains");
  EXPECT_TRUE(
      std::ranges::all_of(std::span(remains).last(kCluster),
                          [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST_F(ExportUnallocatedTest, WhatCannotBeIsRefused) {
  WriteHostFile(folder_ / "raw", std::string(1 << 20, 'r'));
  MakeImage("aes.qcow2", "encrypt.format=aes");
  MakeImage("disk.qcow2");
  const auto refusal = [&](std::vector<std::string> arguments, int exit_code) {
    arguments.insert(arguments.begin(), {"export", "--key-file", KeyFile()});
    const ProgramResult result = RunPellucid(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_FALSE(std::filesystem::exists(folder_ / "remains"));
    return result.err;
  };
  EXPECT_THAT(refusal({"--unallocated", "raw", "remains"}, 2),
              HasSubstr("raw: is not a qcow2 image"));
  EXPECT_THAT(refusal({"--unallocated", "aes.qcow2", "remains"}, 5),
              HasSubstr("--encryption none"));
  EXPECT_THAT(
      refusal({"--unallocated", "--header", "raw", "disk.qcow2", "remains"}, 5),
      HasSubstr("--encryption none"));
  EXPECT_THAT(
      refusal({"--unallocated", "--snapshot", "a", "disk.qcow2", "remains"}, 2),
      HasSubstr("leave --snapshot out"));
  EXPECT_THAT(refusal({"--list", "runs", "disk.qcow2", "remains"}, 2),
              HasSubstr("--unallocated"));
  EXPECT_THAT(
      refusal({"--unallocated", "--list", "remains", "disk.qcow2", "remains"},
              2),
      HasSubstr("the same"));
}

TEST_F(ExportUnallocatedTest, FilesThatTheImageNamesAreNotNeeded) {
  Tool({"qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "missing", "-F",
        "qcow2", "top.qcow2", "1M"});
  const ProgramResult over_backing =
      RunPellucid({"export", "--unallocated", "top.qcow2", "remains"});
  EXPECT_EQ(over_backing.exit_code, 0) << over_backing.err;
  Tool({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=data",
        "data.qcow2", "1M"});
  const ProgramResult external =
      RunPellucid({"export", "--unallocated", "data.qcow2", "nothing"});
  EXPECT_EQ(external.exit_code, 5);
  EXPECT_THAT(external.err, HasSubstr("external data file"));
}

TEST_F(ExportUnallocatedTest, ADamagedImageIsReadWithAWarning) {
  LeaveRemains();
  Bytes image = ReadHostFile(folder_ / "disk.qcow2");
  // An L1 entry that is not aligned.
  const uint64_t l1 = LoadNumber(image, 40, 8);
  StoreNumber(image, l1, 8, LoadNumber(image, l1, 8) | 0x200);
  WriteHostFile(folder_ / "disk.qcow2", image);
  const ProgramResult result =
      RunPellucid({"export", "--unallocated", "--key-file", KeyFile(),
                   "disk.qcow2", "remains"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("may be among the unallocated"));
}

}  // namespace
}  // namespace pellucid
