// Signatures of file systems, judged by blkid.

#include "engine/volume_signature.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "engine/file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

using testing::IsEmpty;

class VolumeSignatureTest : public testing::Test {
 protected:
  void MakeVolume(const std::string& size, std::vector<std::string> program) {
    RunTool({"rm", "-f", "volume"}, "", folder_.path());
    RunTool({"truncate", "-s", size, "volume"}, "", folder_.path());
    program.push_back("volume");
    RunTool(program, "", folder_.path());
  }

  // What blkid says of the volume, of a name.
  std::string Blkid(const std::string& name) {
    // Without -p it would ask its cache.
    const ProgramResult result =
        RunProgram({"blkid", "-p", "-o", "value", "-s", name, "volume"}, "",
                   folder_.path());
    EXPECT_EQ(result.exit_code, 0) << name << result.err;
    return result.out.substr(0, result.out.find('\n'));
  }

  void CheckAgainstBlkid() {
    const auto device =
        FileDevice::Open(folder_ / "volume", FileDevice::Sharing::kExclusive);
    const auto found = FindVolumeSignatures(*device);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].type, Blkid("TYPE"));
    EXPECT_EQ(found[0].label, Blkid("LABEL"));
    EXPECT_EQ(found[0].uuid, Blkid("UUID"));
    EXPECT_NE(found[0].uuid, "");
  }

  void Check(const std::string& type, const std::string& label,
             const std::string& size, std::vector<std::string> program) {
    SCOPED_TRACE(type + " " + label);
    MakeVolume(size, std::move(program));
    CheckAgainstBlkid();
    EXPECT_EQ(Blkid("TYPE"), type);
    EXPECT_EQ(Blkid("LABEL"), label);
  }

  ScratchFolder folder_;
};

TEST_F(VolumeSignatureTest, FileSystemsOfLinuxAreNamedAsBlkidDoes) {
  Check("ext2", "two", "8M", {"mkfs.ext2", "-q", "-L", "two"});
  Check("ext3", "", "8M", {"mkfs.ext3", "-q"});
  Check("ext4", "sixteen letters!", "8M",
        {"mkfs.ext4", "-q", "-L", "sixteen letters!"});
  Check("ext4", "", "8M", {"mkfs.ext4", "-q", "-O", "^has_journal"});
  Check("jbd", "log", "8M",
        {"mkfs.ext4", "-q", "-O", "journal_dev", "-L", "log"});
  Check("xfs", "twelve chars", "320M",
        {"mkfs.xfs", "-q", "-L", "twelve chars"});
  Check("btrfs", "butter", "128M", {"mkfs.btrfs", "-q", "-L", "butter"});
  Check("swap", "spare", "1M", {"mkswap", "-q", "-L", "spare"});
}

TEST_F(VolumeSignatureTest, FileSystemsOfOthersAreNamedAsBlkidDoes) {
  Check("ntfs", "Große Daten", "16M",
        {"mkfs.ntfs", "-F", "-Q", "-q", "-L", "Große Daten"});
  Check("ntfs", "", "16M", {"mkfs.ntfs", "-F", "-Q", "-q", "-c", "512"});
  Check("vfat", "TWELVE", "2M", {"mkfs.vfat", "-F", "12", "-n", "TWELVE"});
  Check("vfat", "SIXTEEN A", "16M",
        {"mkfs.vfat", "-F", "16", "-n", "SIXTEEN A"});
  Check("vfat", "THIRTYTWO", "64M",
        {"mkfs.vfat", "-F", "32", "-n", "THIRTYTWO"});
  Check("vfat", "", "64M", {"mkfs.vfat", "-F", "32"});
  Check("exfat", "Überall", "16M", {"mkfs.exfat", "-L", "Überall"});
  Check("exfat", "", "16M", {"mkfs.exfat"});
}

// blkid has a wrong character there: what stands at the end of a sector of the
// record is not what belongs there.
TEST_F(VolumeSignatureTest, ALongLabelOfNtfsIsWhole) {
  std::string label;
  while (label.size() < 100) label += "abcdefghij";
  MakeVolume("16M", {"mkfs.ntfs", "-F", "-Q", "-q", "-L", label});
  const auto device =
      FileDevice::Open(folder_ / "volume", FileDevice::Sharing::kExclusive);
  const auto found = FindVolumeSignatures(*device);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].label, label);
}

TEST_F(VolumeSignatureTest, LuksIsNamedAsBlkidDoes) {
  WriteHostFile(folder_ / "key", "open sesame");
  const std::vector<std::string> format = {
      "cryptsetup", "luksFormat", "--batch-mode", "--key-file",
      "key",        "--pbkdf",    "pbkdf2",       "--pbkdf-force-iterations",
      "1000",       "--type"};
  auto luks1 = format;
  luks1.push_back("luks1");
  Check("crypto_LUKS", "", "8M", luks1);
  auto luks2 = format;
  luks2.insert(luks2.end(), {"luks2", "--label", "the volume"});
  Check("crypto_LUKS", "the volume", "32M", luks2);
}

TEST_F(VolumeSignatureTest, Iso9660IsNamedAsBlkidDoes) {
  RunTool({"rm", "-f", "volume"}, "", folder_.path());
  RunTool({"mkdir", "tree"}, "", folder_.path());
  RunTool({"xorriso", "-as", "mkisofs", "-quiet", "-V", "A_DISC", "-o",
           "volume", "tree"},
          "", folder_.path());
  CheckAgainstBlkid();
  EXPECT_EQ(Blkid("LABEL"), "A_DISC");
}

// What LVM checks its label with: a CRC-32 with a start of its own.
uint32_t LvmCrc(std::span<const std::byte> bytes) {
  uint32_t crc = 0xf597a6cf;
  for (const std::byte byte : bytes) {
    crc ^= std::to_integer<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320 : 0);
    }
  }
  return crc;
}

void Put(Bytes& bytes, size_t offset, std::string_view text) {
  std::ranges::copy(std::as_bytes(std::span(text)),
                    bytes.begin() + static_cast<ptrdiff_t>(offset));
}

void PutLittleEndian(Bytes& bytes, size_t offset, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) {
    bytes[offset + i] = static_cast<std::byte>(value >> (8 * i));
  }
}

TEST_F(VolumeSignatureTest, PhysicalVolumesOfLvmAreNamedAsBlkidDoes) {
  Bytes volume(4 << 20);  // blkid believes no smaller ones.
  Put(volume, 512, "LABELONE");
  volume[512 + 8] = std::byte{1};  // Its sector.
  PutLittleEndian(volume, 512 + 20, 32);
  Put(volume, 512 + 24, "LVM2 001");
  Put(volume, 512 + 32, "0123456789abcdefghijklmnopqrstuv");
  PutLittleEndian(volume, 512 + 16,
                  LvmCrc(std::span(volume).subspan(512 + 20, 512 - 20)));
  WriteHostFile(folder_ / "volume", volume);
  CheckAgainstBlkid();
  EXPECT_EQ(Blkid("UUID"), "012345-6789-abcd-efgh-ijkl-mnop-qrstuv");
}

TEST_F(VolumeSignatureTest, WhatIsNoVolumeHasNone) {
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{511}, size_t{1 << 20}}) {
    MemoryDevice zeros((Bytes(size)));
    EXPECT_THAT(FindVolumeSignatures(zeros), IsEmpty()) << size;
    MemoryDevice noise(Noise(size, size));
    EXPECT_THAT(FindVolumeSignatures(noise), IsEmpty()) << size;
  }
}

// An old signature that nobody wiped is evidence, too.
TEST_F(VolumeSignatureTest, SeveralSignaturesAreAllFound) {
  MakeVolume("8M", {"mkfs.ext4", "-q", "-L", "old"});
  Bytes volume = ReadHostFile(folder_ / "volume");
  Put(volume, 0, "XFSB");
  Put(volume, 108, "new");
  MemoryDevice device(volume);
  const auto found = FindVolumeSignatures(device);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].label, "new");
  EXPECT_EQ(found[1].label, "old");
}

// Whatever the other bytes say, nothing is read that is not there.
TEST_F(VolumeSignatureTest, SignaturesInNoiseAreReadWithoutHarm) {
  constexpr std::pair<size_t, std::string_view> kMagics[] = {
      {0, "XFSB"},        {0, "LUKS\xba\xbe"}, {3, "NTFS    "},
      {3, "EXFAT   "},    {512, "LABELONE"},   {4086, "SWAPSPACE2"},
      {1080, "\x53\xef"}, {65600, "_BHRfS_M"}, {32768, "\1CD001"},
      {82, "FAT32   "}};
  for (const auto& [offset, magic] : kMagics) {
    for (uint64_t seed = 0; seed < 200; ++seed) {
      const size_t size = seed % 2 == 0 ? size_t{1} << 17 : offset + 600;
      Bytes volume = Noise(size, seed);
      Put(volume, offset, magic);
      Put(volume, 510, "\x55\xaa");
      PutLittleEndian(volume, 532, 480);
      Put(volume, 536, "LVM2 001");
      // Places that make sense reach the places that do not.
      if (seed % 3 == 0) {
        Put(volume, 11, std::string_view("\0\2\1", 3));
        Put(volume, 48, std::string_view("\2\0\0\0\0\0\0\0", 8));
        volume[64] = std::byte{0xf6};
        if (size > 4096) Put(volume, 1024 + 3 * 1024, "FILE");
      }
      MemoryDevice device(volume);
      EXPECT_EQ(FindVolumeSignatures(device).size(), 1u) << magic << seed;
    }
  }
}

// Those of the first block, and the copies that file systems make.
TEST_F(VolumeSignatureTest, CopiesInTheMiddleAreFound) {
  const auto found_at = [&](uint64_t at) {
    const Bytes volume = ReadHostFile(folder_ / "volume");
    const auto found =
        FindSignaturesInBlock(std::span(volume).subspan(at).first<4096>());
    if (found.size() != 1) return fmt::format("{} of them", found.size());
    EXPECT_EQ(found[0].uuid, Blkid("UUID"));
    return found[0].type;
  };
  MakeVolume("64M", {"mkfs.ext4", "-q", "-b", "1024"});
  EXPECT_EQ(found_at(0), "ext4");
  // Group 1, from block 8193 on; not the primary one as if it were a copy.
  EXPECT_EQ(found_at(8193 * 1024), "ext4");
  EXPECT_EQ(found_at(1024), "0 of them");
  MakeVolume("320M", {"mkfs.xfs", "-q", "-d", "agcount=4"});
  EXPECT_EQ(found_at(0), "xfs");
  EXPECT_EQ(found_at(80 << 20), "xfs");
  MakeVolume("128M", {"mkfs.btrfs", "-q"});
  EXPECT_EQ(found_at(64 << 10), "btrfs");
  EXPECT_EQ(found_at(64 << 20), "btrfs");
  MakeVolume("64M", {"mkfs.vfat", "-F", "32"});
  EXPECT_EQ(found_at(0), "vfat");
  EXPECT_EQ(found_at(6 * 512), "vfat");
  MakeVolume("8M", {"mkfs.ntfs", "-q", "-F", "-Q"});
  EXPECT_EQ(found_at(0), "ntfs");
  MakeVolume("8M", {"mkfs.exfat"});
  EXPECT_EQ(found_at(0), "exfat");
  MakeVolume("2M", {"mkswap", "-q"});
  EXPECT_EQ(found_at(0), "swap");
}

TEST(SignaturesInBlockTest, NothingIsFoundInNoiseAndText) {
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    EXPECT_THAT(FindSignaturesInBlock(
                    std::span<const std::byte, 4096>(Noise(4096, seed))),
                IsEmpty());
  }
  // 16 bits of ext's magic alone.
  Bytes block(4096, std::byte{'x'});
  block[56] = block[1024 + 56] = std::byte{0x53};
  block[57] = block[1024 + 57] = std::byte{0xef};
  EXPECT_THAT(FindSignaturesInBlock(std::span<const std::byte, 4096>(block)),
              IsEmpty());
}

}  // namespace
}  // namespace pellucid
