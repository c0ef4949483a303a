#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "engine/errors.h"
#include "engine/qcow2/header.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::qcow2 {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kCluster = 65536;
constexpr uint32_t kNamesExtension = 0x6803f857;
constexpr uint32_t kCryptoExtension = 0x0537be77;
constexpr uint32_t kBackingFormatExtension = 0xe2792aca;
constexpr uint32_t kDataFileExtension = 0x44415441;
constexpr uint32_t kBitmapsExtension = 0x23852875;

// A sound image of eight clusters of 64 KiB: header, L1 table, refcount table,
// snapshot table, in this order.
struct CraftedHeader {
  Bytes bytes = Bytes(8 * kCluster);

  explicit CraftedHeader(uint32_t version = 3) {
    Set(0, 4, kMagic);
    Set(4, 4, version);
    Set(20, 4, 16);            // cluster_bits
    Set(24, 8, 512 << 20);     // size, of one L2 table
    Set(36, 4, 1);             // l1_size
    Set(40, 8, kCluster);      // l1_table_offset
    Set(48, 8, 2 * kCluster);  // refcount_table_offset
    Set(56, 4, 1);             // refcount_table_clusters
    if (version >= 3) {
      Set(96, 4, 4);     // refcount_order
      Set(100, 4, 112);  // header_length
    }
    next_extension = version >= 3 ? 112 : 72;
  }

  CraftedHeader& Set(uint64_t byte, unsigned width, uint64_t value) {
    StoreNumber(bytes, byte, width, value);
    return *this;
  }
  CraftedHeader& SetText(uint64_t byte, std::string_view text) {
    std::ranges::copy(std::as_bytes(std::span(text)),
                      bytes.begin() + static_cast<ptrdiff_t>(byte));
    return *this;
  }
  CraftedHeader& Extend(uint32_t type, std::string_view data) {
    Set(next_extension, 4, type);
    Set(next_extension + 4, 4, data.size());
    SetText(next_extension + 8, data);
    next_extension += 8 + (data.size() + 7) / 8 * 8;
    return *this;
  }
  CraftedHeader& ExtendCrypto(uint64_t offset, uint64_t length,
                              size_t data_size = 16) {
    Bytes data(24);
    StoreNumber(data, 0, 8, offset);
    StoreNumber(data, 8, 8, length);
    return Extend(kCryptoExtension,
                  {reinterpret_cast<const char*>(data.data()), data_size});
  }

  Header Read() const {
    MemoryDevice file(bytes);
    return ReadHeader(file, "disk.qcow2");
  }
  std::string Corrupt() const {
    return ThrownText<CorruptImage>([&] { Read(); });
  }
  std::string Refused() const {
    return ThrownText<Unsupported>([&] { Read(); });
  }

  uint64_t next_extension;
};

// ---- What a sound header says

TEST(Qcow2HeaderTest, Version3FieldsAreRead) {
  const Header header = CraftedHeader()
                            .Set(72, 8, kDirty | kCorrupt)
                            .Set(80, 8, kLazyRefcounts)
                            .Set(88, 8, kBitmapsConsistent)
                            .Set(96, 4, 6)
                            .Read();
  EXPECT_EQ(header.version, 3U);
  EXPECT_EQ(header.cluster_size(), kCluster);
  EXPECT_EQ(header.size, 512U << 20);
  EXPECT_EQ(header.crypt_method, CryptMethod::kNone);
  EXPECT_EQ(header.l1_size, 1U);
  EXPECT_EQ(header.l1_table_offset, kCluster);
  EXPECT_EQ(header.refcount_table_offset, 2 * kCluster);
  EXPECT_EQ(header.refcount_table_clusters, 1U);
  EXPECT_TRUE(header.has(kDirty));
  EXPECT_TRUE(header.has(kCorrupt));
  EXPECT_FALSE(header.has(kExtendedL2));
  EXPECT_EQ(header.compatible_features, kLazyRefcounts);
  EXPECT_EQ(header.autoclear_features, kBitmapsConsistent);
  EXPECT_EQ(header.refcount_order, 6U);
  EXPECT_EQ(header.header_length, 112U);
}

TEST(Qcow2HeaderTest, Version2HasNoFeaturesWhateverStandsBehindIt) {
  CraftedHeader crafted(2);
  crafted.Set(72, 4, 0x12345678);  // An unknown extension of no length ...
  crafted.Set(80, 4, 0);           // ... and the end.
  const Header header = crafted.Read();
  EXPECT_EQ(header.incompatible_features, 0U);
  EXPECT_EQ(header.refcount_order, 4U);
  EXPECT_EQ(header.header_length, 72U);
}

TEST(Qcow2HeaderTest, ShortestVersion3HeaderHasNoCompressionType) {
  const Header header = CraftedHeader().Set(100, 4, 104).Set(104, 8, 0).Read();
  EXPECT_EQ(header.compression_type, CompressionType::kZlib);
}

TEST(Qcow2HeaderTest, ZstdNeedsBitAndFieldToAgree) {
  EXPECT_EQ(CraftedHeader()
                .Set(72, 8, kCompressionType)
                .Set(104, 1, 1)
                .Read()
                .compression_type,
            CompressionType::kZstd);
  EXPECT_THAT(CraftedHeader().Set(104, 1, 1).Corrupt(),
              HasSubstr("compression_type (byte 104) is 1"));
  EXPECT_THAT(CraftedHeader().Set(72, 8, kCompressionType).Corrupt(),
              HasSubstr("compression_type (byte 104) is 0"));
}

TEST(Qcow2HeaderTest, UnknownAutoclearAndCompatibleBitsAreIgnored) {
  EXPECT_NO_THROW(
      CraftedHeader().Set(80, 8, UINT64_MAX).Set(88, 8, UINT64_MAX).Read());
}

TEST(Qcow2HeaderTest, DiskOfNoBytesNeedsNoL1Table) {
  const Header header =
      CraftedHeader().Set(24, 8, 0).Set(36, 4, 0).Set(40, 8, 0).Read();
  EXPECT_EQ(header.size, 0U);
}

// ---- Each field at its limit and one past it

struct FieldCase {
  const char* name;  // As the message has it.
  uint64_t byte;
  unsigned width;
  uint64_t good;
  uint64_t bad;
};

class Qcow2HeaderField : public testing::TestWithParam<FieldCase> {};

INSTANTIATE_TEST_SUITE_P(
    Limits, Qcow2HeaderField,
    testing::Values(
        FieldCase{"version (byte 4)", 4, 4, 3, 4},
        FieldCase{"version (byte 4)", 4, 4, 2, 1},
        FieldCase{"cluster_bits (byte 20)", 20, 4, 16, 8},
        FieldCase{"cluster_bits (byte 20)", 20, 4, 16, 22},
        FieldCase{"cluster_bits (byte 20)", 20, 4, 16, 0xffffffff},
        FieldCase{"crypt_method (byte 32)", 32, 4, 1, 3},
        FieldCase{"crypt_method (byte 32)", 32, 4, 0, 0xffffffff},
        // 512 MiB is what one L2 table covers.
        FieldCase{"l1_size (byte 36)", 24, 8, 512 << 20, (512 << 20) + 1},
        FieldCase{"l1_size (byte 36)", 24, 8, 1, UINT64_MAX},
        FieldCase{"l1_size (byte 36)", 36, 4, 1, 0},
        // The limit of 32 MiB, and what is left of the file.
        FieldCase{"l1_table_offset (byte 40)", 36, 4, 7 * 8192, 7 * 8192 + 1},
        FieldCase{"l1_size (byte 36)", 36, 4, 8192, (32 << 20) / 8 + 1},
        FieldCase{"l1_table_offset (byte 40)", 40, 8, 7 * kCluster,
                  kCluster + 512},
        FieldCase{"l1_table_offset (byte 40)", 40, 8, kCluster, 0},
        FieldCase{"l1_table_offset (byte 40)", 40, 8, kCluster, 8 * kCluster},
        FieldCase{"l1_table_offset (byte 40)", 40, 8, kCluster,
                  UINT64_MAX - kCluster + 1},
        FieldCase{"refcount_table_offset (byte 48)", 48, 8, 7 * kCluster,
                  8 * kCluster},
        FieldCase{"refcount_table_offset (byte 48)", 48, 8, kCluster,
                  kCluster + 8},
        FieldCase{"refcount_table_offset (byte 48)", 48, 8, kCluster, 0},
        FieldCase{"refcount_table_clusters (byte 56)", 56, 4, 1, 0},
        // 8 MiB are 128 clusters.
        FieldCase{"refcount_table_clusters (byte 56)", 56, 4, 6, 129},
        FieldCase{"refcount_table_clusters (byte 56)", 56, 4, 1, 0xffffffff},
        FieldCase{"refcount_table_offset (byte 48)", 56, 4, 6, 7},
        FieldCase{"nb_snapshots (byte 60)", 60, 4, 0, 65537},
        FieldCase{"snapshots_offset (byte 64)", 60, 4, 0, 1},
        FieldCase{"refcount_order (byte 96)", 96, 4, 6, 7},
        FieldCase{"refcount_order (byte 96)", 96, 4, 0, 0xffffffff},
        FieldCase{"header_length (byte 100)", 100, 4, 104, 103},
        FieldCase{"header_length (byte 100)", 100, 4, kCluster, kCluster + 1},
        FieldCase{"header_length (byte 100)", 100, 4, 112, 0xffffffff},
        FieldCase{"compression_type (byte 104)", 104, 1, 0, 2},
        FieldCase{"compression_type (byte 104)", 104, 1, 0, 255}));

TEST_P(Qcow2HeaderField, LimitIsTaken) {
  CraftedHeader crafted;
  crafted.Set(GetParam().byte, GetParam().width, GetParam().good);
  EXPECT_NO_THROW(crafted.Read());
}

TEST_P(Qcow2HeaderField, OnePastTheLimitIsNamedInTheError) {
  CraftedHeader crafted;
  crafted.Set(GetParam().byte, GetParam().width, GetParam().bad);
  try {
    crafted.Read();
    FAIL() << "was accepted";
  } catch (const Error& error) {  // Either CorruptImage or Unsupported.
    EXPECT_THAT(
        error.what(),
        HasSubstr(std::string("disk.qcow2: header field ") + GetParam().name));
  }
}

TEST(Qcow2HeaderTest, SmallestAndLargestClustersAreTaken) {
  for (const uint32_t cluster_bits : {9U, 21U}) {
    CraftedHeader crafted;
    const uint64_t cluster = uint64_t{1} << cluster_bits;
    crafted.bytes.resize(4 * (2 << 20));
    crafted.Set(20, 4, cluster_bits).Set(24, 8, 512);
    crafted.Set(40, 8, cluster).Set(48, 8, 2 * cluster);
    EXPECT_EQ(crafted.Read().cluster_size(), cluster);
  }
}

TEST(Qcow2HeaderTest, ExtendedL2NeedsClustersOf16KiB) {
  CraftedHeader crafted;
  crafted.Set(72, 8, kExtendedL2).Set(24, 8, 512);
  EXPECT_NO_THROW(crafted.Set(20, 4, 14).Read());
  crafted.Set(40, 8, 8192).Set(48, 8, 16384);
  EXPECT_THAT(crafted.Set(20, 4, 13).Corrupt(),
              HasSubstr("cluster_bits (byte 20) is 13, below 14"));
}

TEST(Qcow2HeaderTest, ExtendedL2HalvesWhatATableCovers) {
  CraftedHeader crafted;
  crafted.Set(72, 8, kExtendedL2);
  EXPECT_NO_THROW(crafted.Set(24, 8, 256 << 20).Read());
  EXPECT_THAT(crafted.Set(24, 8, (256 << 20) + 1).Corrupt(),
              HasSubstr("needs 2 entries"));
}

TEST(Qcow2HeaderTest, SnapshotTableMustStandInsideTheFile) {
  CraftedHeader crafted;
  crafted.Set(60, 4, 1);
  EXPECT_NO_THROW(crafted.Set(64, 8, 3 * kCluster).Read());
  for (const uint64_t bad : {3 * kCluster + 8, 8 * kCluster, uint64_t{0}}) {
    EXPECT_THAT(crafted.Set(64, 8, bad).Corrupt(),
                HasSubstr("snapshots_offset (byte 64)"));
  }
}

// ---- Files that were cut off

TEST(Qcow2HeaderTest, FileCutOffAtEachByteIsRefusedAsSuch) {
  for (const uint32_t version : {2U, 3U}) {
    const CraftedHeader whole(version);
    for (size_t length = 0; length < 112; ++length) {
      CraftedHeader cut = whole;
      cut.bytes.resize(length);
      const std::string text = cut.Corrupt();
      ASSERT_THAT(text, HasSubstr("disk.qcow2: header field ")) << length;
      ASSERT_THAT(text, HasSubstr("-byte file")) << length;
    }
  }
}

TEST(Qcow2HeaderTest, FileCutOffInsideATableIsRefused) {
  CraftedHeader crafted;
  crafted.bytes.resize(3 * kCluster);
  EXPECT_NO_THROW(crafted.Read());
  crafted.bytes.resize(3 * kCluster - 1);
  EXPECT_THAT(crafted.Corrupt(), HasSubstr("refcount_table_offset (byte 48)"));
  crafted.bytes.resize(kCluster + 7);
  EXPECT_THAT(crafted.Corrupt(), HasSubstr("l1_table_offset (byte 40)"));
}

TEST(Qcow2HeaderTest, MagicNeedsAllOfItsFourBytes) {
  const Bytes start = CraftedHeader().bytes;
  EXPECT_TRUE(HasMagic(std::span(start).first(4)));
  EXPECT_FALSE(HasMagic(std::span(start).first(3)));
  EXPECT_FALSE(HasMagic({}));
  EXPECT_FALSE(HasMagic(std::span(start).subspan(1, 8)));
}

// ---- Extensions

TEST(Qcow2ExtensionTest, UnknownOnesAreSkippedWhateverTheirLength) {
  for (const size_t length : {0U, 1U, 7U, 8U, 9U, 1000U}) {
    const Header header = CraftedHeader()
                              .Extend(0x11223344, std::string(length, 'x'))
                              .Extend(kBackingFormatExtension, "qcow2")
                              .Read();
    EXPECT_EQ(header.backing_format, "qcow2") << length;
  }
}

TEST(Qcow2ExtensionTest, NothingBehindTheEndMarkerCounts) {
  const Header header = CraftedHeader()
                            .Extend(0, "")
                            .Extend(kBackingFormatExtension, "qcow2")
                            .Read();
  EXPECT_EQ(header.backing_format, "");
}

TEST(Qcow2ExtensionTest, NamesAndCountsAreRead) {
  const Header header = CraftedHeader()
                            .Extend(kDataFileExtension, "disk.data")
                            .Extend(kBitmapsExtension, {"\0\0\0\5", 4})
                            .Read();
  EXPECT_EQ(header.data_file, "disk.data");
  EXPECT_EQ(header.nb_bitmaps, 5U);
}

TEST(Qcow2ExtensionTest, BitmapsExtensionWithoutACountIsHarmless) {
  EXPECT_EQ(CraftedHeader().Extend(kBitmapsExtension, "abc").Read().nb_bitmaps,
            0U);
}

TEST(Qcow2ExtensionTest, LengthMayReachTheEndOfTheClusterButNotPastIt) {
  CraftedHeader crafted;
  const uint64_t room = kCluster - 112 - 8;
  crafted.Set(112, 4, 0x11223344);
  EXPECT_NO_THROW(crafted.Set(116, 4, room).Read());
  for (const uint64_t length : {room + 1, uint64_t{0xffffffff}}) {
    EXPECT_THAT(crafted.Set(116, 4, length).Corrupt(),
                HasSubstr("header extension 0x11223344 (byte 112)"));
  }
}

TEST(Qcow2ExtensionTest, ExtensionsEndWhereTheBackingNameBegins) {
  CraftedHeader crafted;
  crafted.Set(8, 8, 160).Set(16, 4, 5).SetText(160, "a.raw");
  crafted.Set(112, 4, 0x11223344);
  EXPECT_NO_THROW(crafted.Set(116, 4, 160 - 120).Read());
  EXPECT_THAT(crafted.Set(116, 4, 160 - 119).Corrupt(),
              HasSubstr("past the end of the header area at 160"));
}

TEST(Qcow2ExtensionTest, UnknownIncompatibleBitsAreQuotedFromTheNameTable) {
  std::string table;
  const auto add = [&](char type, char bit, std::string name) {
    name.resize(46);
    table += type;
    table += bit;
    table += name;
  };
  add(0, 40, "time travel");
  add(1, 41, "compatible thing");    // Of another set of bits.
  add(0, 42, std::string(46, 'n'));  // As long as can be: no NUL.
  CraftedHeader crafted;
  crafted.Extend(kNamesExtension, table);
  crafted.Set(72, 8, uint64_t{1} << 40 | uint64_t{1} << 41 | uint64_t{1} << 42);
  EXPECT_THAT(crafted.Refused(),
              AllOf(HasSubstr("incompatible_features (byte 72)"),
                    HasSubstr("bit 40 \"time travel\", bit 41, bit 42 \"" +
                              std::string(46, 'n') + "\"")));
}

TEST(Qcow2ExtensionTest, EachUnknownIncompatibleBitIsRefused) {
  for (unsigned bit = 5; bit < 64; ++bit) {
    EXPECT_THAT(CraftedHeader().Set(72, 8, uint64_t{1} << bit).Refused(),
                HasSubstr("bit " + std::to_string(bit)));
  }
}

TEST(Qcow2ExtensionTest, ControlCharactersOfAFeatureNameStayOutOfTheMessage) {
  std::string entry("\0\x28\x1b[31mred\x07\x9b\x7f\xff\n", 14);
  entry.resize(48);
  CraftedHeader crafted;
  crafted.Extend(kNamesExtension, entry).Set(72, 8, uint64_t{1} << 40);
  const std::string text = crafted.Refused();
  EXPECT_THAT(text, HasSubstr("bit 40 \"?[31mred?"));
  for (const char c : text) {
    EXPECT_TRUE(c >= ' ' && c <= '~') << static_cast<int>(c);
  }
}

TEST(Qcow2ExtensionTest, CutEntryOfTheNameTableIsIgnored) {
  std::string entry("\0\x28unfinished", 12);
  CraftedHeader crafted;
  crafted.Extend(kNamesExtension, entry).Set(72, 8, uint64_t{1} << 40);
  EXPECT_THAT(crafted.Refused(), Not(HasSubstr("unfinished")));
}

// ---- Encryption

TEST(Qcow2EncryptionTest, LuksNeedsItsExtension) {
  EXPECT_THAT(CraftedHeader().Set(32, 4, 2).Corrupt(),
              HasSubstr("crypt_method (byte 32) is 2"));
}

TEST(Qcow2EncryptionTest, ExtensionNeedsLuks) {
  for (const uint32_t method : {0U, 1U}) {
    EXPECT_THAT(CraftedHeader()
                    .ExtendCrypto(3 * kCluster, kCluster)
                    .Set(32, 4, method)
                    .Corrupt(),
                HasSubstr("crypt_method (byte 32)"));
  }
}

TEST(Qcow2EncryptionTest, ExtensionIsSixteenBytesLong) {
  for (const size_t length : {0U, 8U, 15U, 17U, 24U}) {
    EXPECT_THAT(CraftedHeader()
                    .ExtendCrypto(3 * kCluster, kCluster, length)
                    .Set(32, 4, 2)
                    .Corrupt(),
                HasSubstr("(byte 112) is " + std::to_string(length) +
                          " bytes long, not 16"));
  }
}

TEST(Qcow2EncryptionTest, HeaderAreaMustBeAlignedAndInsideTheFile) {
  const auto with = [](uint64_t offset, uint64_t length) {
    return CraftedHeader().ExtendCrypto(offset, length).Set(32, 4, 2);
  };
  const Header header = with(3 * kCluster, 5 * kCluster).Read();
  EXPECT_EQ(header.crypto_header->offset, 3 * kCluster);
  EXPECT_EQ(header.crypto_header->length, 5 * kCluster);
  EXPECT_THAT(with(3 * kCluster + 512, 512).Corrupt(),
              HasSubstr("offset 0x30200 (byte 120)"));
  EXPECT_THAT(with(3 * kCluster, 5 * kCluster + 1).Corrupt(),
              HasSubstr("(byte 128)"));
  EXPECT_THAT(with(3 * kCluster, UINT64_MAX).Corrupt(),
              HasSubstr("(byte 128)"));
  EXPECT_THAT(with(UINT64_MAX - kCluster + 1, kCluster).Corrupt(),
              HasSubstr("(byte 128)"));
}

// ---- The backing file's name

TEST(Qcow2BackingNameTest, NameIsReadFromTheFirstCluster) {
  CraftedHeader crafted;
  crafted.Set(8, 8, 200).Set(16, 4, 9).SetText(200, "base.rawXX");
  EXPECT_EQ(crafted.Read().backing_file, "base.rawX");
}

TEST(Qcow2BackingNameTest, LongestNameIsTakenAndALongerOneRefused) {
  CraftedHeader crafted;
  crafted.Set(8, 8, 200).SetText(200, std::string(1024, 'n'));
  EXPECT_EQ(crafted.Set(16, 4, 1023).Read().backing_file.size(), 1023U);
  EXPECT_THAT(crafted.Set(16, 4, 1024).Corrupt(),
              HasSubstr("backing_file_size (byte 16) is 1024"));
}

TEST(Qcow2BackingNameTest, NameMustEndInsideTheFirstCluster) {
  CraftedHeader crafted;
  crafted.SetText(kCluster - 4, "nameless");
  EXPECT_NO_THROW(crafted.Set(8, 8, kCluster - 4).Set(16, 4, 4).Read());
  EXPECT_THAT(crafted.Set(16, 4, 5).Corrupt(),
              HasSubstr("backing_file_offset (byte 8)"));
  for (const uint64_t offset : {kCluster + 1, UINT64_MAX}) {
    EXPECT_THAT(crafted.Set(8, 8, offset).Corrupt(),
                HasSubstr("backing_file_offset (byte 8)"));
  }
}

TEST(Qcow2BackingNameTest, NulInTheNameIsRefused) {
  CraftedHeader crafted;
  crafted.Set(8, 8, 200).Set(16, 4, 9).SetText(200, {"base\0.raw", 9});
  EXPECT_THAT(crafted.Corrupt(), HasSubstr("NUL"));
}

}  // namespace
}  // namespace pellucid::qcow2
