#include "engine/qcow2/cluster_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::qcow2 {
namespace {

using testing::HasSubstr;

constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint64_t kCompressed = uint64_t{1} << 62;
constexpr uint64_t kZeroFlag = 1;
constexpr uint64_t kAll = UINT64_MAX / 2;  // As long as anything can be.

// Tables in a file that has nothing else: the L1 table in cluster 1, the L2
// table of L1 entry i in cluster 2 + i unless the test says otherwise.
class Tables {
 public:
  Tables(uint32_t cluster_bits, uint32_t l1_entries, bool extended = false) {
    header.version = 3;
    header.cluster_bits = cluster_bits;
    header.incompatible_features = extended ? kExtendedL2 : 0;
    header.l1_table_offset = cluster();
    header.l1_size = l1_entries;
    file = std::make_unique<MemoryDevice>(Bytes((2 + l1_entries) * cluster()));
    for (uint32_t i = 0; i < l1_entries; ++i) {
      SetL1(i, L2TableOf(i) | kCopied);
    }
  }

  uint64_t cluster() const { return header.cluster_size(); }
  uint64_t L2TableOf(uint32_t l1_index) const {
    return (2 + l1_index) * cluster();
  }
  // Where the entry of guest cluster `n` stands.
  uint64_t ByteOfEntry(uint64_t n) const {
    return 2 * cluster() + n * header.l2_entry_size();
  }

  void SetL1(uint32_t index, uint64_t entry) {
    StoreNumber(file->bytes(), header.l1_table_offset + index * 8, 8, entry);
  }
  void Set(uint64_t n, uint64_t descriptor, uint64_t bitmap = 0) {
    StoreNumber(file->bytes(), ByteOfEntry(n), 8, descriptor);
    if (header.has(kExtendedL2)) {
      StoreNumber(file->bytes(), ByteOfEntry(n) + 8, 8, bitmap);
    }
  }

  // Later changes of the L1 table do not count.
  ClusterMap& map() {
    if (!map_) {
      map_.emplace(*file, "disk.qcow2", header,
                   ReadL1Table(*file, header.l1_table_offset, header.l1_size),
                   1 << 20);
    }
    return *map_;
  }
  Mapping Map(uint64_t at, uint64_t length) { return map().Map({at}, length); }
  std::string Refusal(uint64_t at) {
    return ThrownText<CorruptImage>([&] { Map(at, 1); });
  }

  Header header;
  std::unique_ptr<MemoryDevice> file;

 private:
  std::optional<ClusterMap> map_;
};

void ExpectData(const Mapping& mapping, uint64_t host, uint64_t length) {
  EXPECT_EQ(mapping.kind, ClusterKind::kData);
  EXPECT_EQ(mapping.host.value, host);
  EXPECT_EQ(mapping.length, length);
}

void ExpectNoData(const Mapping& mapping, ClusterKind kind, uint64_t length) {
  EXPECT_EQ(mapping.kind, kind);
  EXPECT_EQ(mapping.length, length);
}

// ---- Standard L2 entries

TEST(ClusterMapTest, EveryKindOfEntryIsTold) {
  Tables tables(16, 1);
  const uint64_t c = tables.cluster();
  tables.Set(0, 0);
  tables.Set(1, 7 * c | kCopied);
  tables.Set(2, kZeroFlag);
  tables.Set(3, 9 * c | kZeroFlag | kCopied);  // Preallocated zeros.
  tables.Set(4, kCompressed | 0x1234);
  ExpectNoData(tables.Map(0, c), ClusterKind::kUnallocated, c);
  ExpectData(tables.Map(c, c), 7 * c, c);
  ExpectNoData(tables.Map(2 * c, c), ClusterKind::kZero, c);
  ExpectNoData(tables.Map(3 * c, c), ClusterKind::kZero, c);
  ExpectNoData(tables.Map(4 * c, c), ClusterKind::kCompressed, c);
}

TEST(ClusterMapTest, DataNeedsNoCopiedFlag) {
  Tables tables(16, 1);
  tables.Set(0, 7 * tables.cluster());
  ExpectData(tables.Map(0, 10), 7 * tables.cluster(), 10);
}

TEST(ClusterMapTest, MappingBeginsInsideTheCluster) {
  Tables tables(16, 1);
  const uint64_t c = tables.cluster();
  tables.Set(1, 7 * c | kCopied);
  ExpectData(tables.Map(c + 1000, 3), 7 * c + 1000, 3);
  ExpectData(tables.Map(2 * c - 1, 1), 8 * c - 1, 1);
}

TEST(ClusterMapTest, ReservedBitsAreNoPartOfTheOffset) {
  Tables tables(9, 1);
  tables.SetL1(0, tables.L2TableOf(0) | 0x7f00'0000'0000'01ff);
  tables.Set(0, 0x3f00'0000'0000'01fe | 5 * 512);
  ExpectData(tables.Map(0, 512), 5 * 512, 512);
}

TEST(ClusterMapTest, ZeroFlagIsRefusedInVersion2) {
  Tables tables(16, 1);
  tables.header.version = 2;
  tables.Set(3, kZeroFlag);
  const std::string text = tables.Refusal(3 * tables.cluster());
  EXPECT_THAT(text, HasSubstr("disk.qcow2: L2 entry (byte 131096) is 0x1"));
  EXPECT_THAT(text, HasSubstr("version 2"));
}

TEST(ClusterMapTest, EntryWithoutAnL2TableIsUnallocated) {
  Tables tables(9, 3);
  tables.SetL1(1, 0);
  tables.SetL1(2, kCopied);  // No offset all the same.
  const uint64_t coverage = tables.header.l2_coverage();
  tables.Set(63, 40 * 512 | kCopied);  // The last of the first table.
  ExpectData(tables.Map(coverage - 1, kAll), 41 * 512 - 1, 1);
  ExpectNoData(tables.Map(coverage, 2 * coverage), ClusterKind::kUnallocated,
               2 * coverage);
  ExpectNoData(tables.Map(coverage + 1000, 7), ClusterKind::kUnallocated, 7);
}

// ---- Runs

TEST(ClusterMapTest, AdjacentHostClustersMakeOneRun) {
  Tables tables(16, 1);
  const uint64_t c = tables.cluster();
  for (uint64_t n = 0; n < 200; ++n) tables.Set(n, (50 + n) * c | kCopied);
  ExpectData(tables.Map(100, 200 * c - 100), 50 * c + 100, 200 * c - 100);
}

TEST(ClusterMapTest, RunEndsWhereTheHostOffsetJumps) {
  Tables tables(16, 1);
  const uint64_t c = tables.cluster();
  tables.Set(0, 50 * c);
  tables.Set(1, 51 * c);
  tables.Set(2, 53 * c);
  tables.Set(3, 52 * c);
  tables.Set(4, 52 * c);
  ExpectData(tables.Map(0, 5 * c), 50 * c, 2 * c);
  ExpectData(tables.Map(2 * c, 3 * c), 53 * c, c);
  ExpectData(tables.Map(3 * c, 2 * c), 52 * c, c);
}

TEST(ClusterMapTest, RunEndsWhereTheKindChanges) {
  Tables tables(16, 1);
  const uint64_t c = tables.cluster();
  tables.Set(0, 50 * c);
  tables.Set(1, 51 * c | kZeroFlag);  // Contiguous, but its data is void.
  tables.Set(2, kZeroFlag);
  tables.Set(3, 0);
  tables.Set(4, 0);
  tables.Set(5, 54 * c);
  ExpectData(tables.Map(0, 6 * c), 50 * c, c);
  const Mapping with_place = tables.Map(c, 5 * c);
  ExpectNoData(with_place, ClusterKind::kZero, c);
  EXPECT_TRUE(with_place.has_place);
  EXPECT_EQ(with_place.host.value, 51 * c);
  const Mapping without_place = tables.Map(2 * c, 4 * c);
  ExpectNoData(without_place, ClusterKind::kZero, c);
  EXPECT_FALSE(without_place.has_place);
  ExpectNoData(tables.Map(3 * c, 3 * c), ClusterKind::kUnallocated, 2 * c);
}

TEST(ClusterMapTest, CompressedClusterIsARunOfItsOwn) {
  Tables tables(16, 1);
  const uint64_t c = tables.cluster();
  tables.Set(0, 50 * c);
  tables.Set(1, kCompressed | 0x4000);
  tables.Set(2, kCompressed | 0x4000);  // Even an equal neighbour.
  tables.Set(3, kCompressed | 0x5000);
  ExpectData(tables.Map(0, 4 * c), 50 * c, c);
  ExpectNoData(tables.Map(c, 3 * c), ClusterKind::kCompressed, c);
  ExpectNoData(tables.Map(2 * c, 2 * c), ClusterKind::kCompressed, c);
  ExpectNoData(tables.Map(2 * c + 100, 2 * c), ClusterKind::kCompressed,
               c - 100);
}

TEST(ClusterMapTest, WalkCoversTablesSlicesAndBordersExactly) {
  // 8192 entries a table make 16 slices of the cache.
  Tables tables(16, 3);
  tables.SetL1(1, 0);
  const uint64_t c = tables.cluster();
  const uint64_t entries = tables.header.l2_entries();
  // All of the first table is one run of data; of the third, every entry whose
  // number is no multiple of 511.
  for (uint64_t n = 0; n < entries; ++n) {
    tables.Set(n, (100 + n) * c);
    if (n % 511 != 0) {
      StoreNumber(tables.file->bytes(), tables.L2TableOf(2) + n * 8, 8,
                  (9000 + n) * c);
    }
  }
  const uint64_t end = 3 * entries * c;
  for (uint64_t at = 0; at < end;) {
    const Mapping mapping = tables.Map(at, end - at);
    ASSERT_GT(mapping.length, 0U);
    ASSERT_LE(mapping.length, end - at);
    for (uint64_t here = at; here < at + mapping.length; here += c) {
      const uint64_t n = here / c;
      if (n < entries) {
        ASSERT_EQ(mapping.kind, ClusterKind::kData) << "cluster " << n;
        ASSERT_EQ(mapping.host.value + (here - at), (100 + n) * c);
      } else if (n < 2 * entries || n % entries % 511 == 0) {
        ASSERT_EQ(mapping.kind, ClusterKind::kUnallocated) << "cluster " << n;
      } else {
        ASSERT_EQ(mapping.kind, ClusterKind::kData) << "cluster " << n;
        ASSERT_EQ(mapping.host.value + (here - at), (9000 + n % entries) * c);
      }
    }
    at += mapping.length;
  }
}

TEST(ClusterMapTest, RunCrossesSlicesOfATable) {
  Tables tables(16, 1);
  const uint64_t c = tables.cluster();
  for (uint64_t n = 0; n < 8192; ++n) tables.Set(n, (100 + n) * c);
  EXPECT_EQ(tables.Map(0, 8192 * c).length, 8192 * c);
}

// ---- External data files

TEST(ClusterMapTest, OffsetZeroOfADataFileIsDataIfTheCopiedFlagIsSet) {
  Tables tables(16, 1);
  const uint64_t c = tables.cluster();
  tables.header.incompatible_features |= kExternalDataFile;
  tables.Set(0, kCopied);
  tables.Set(1, c | kCopied);
  tables.Set(2, 0);
  ExpectData(tables.Map(0, 3 * c), 0, 2 * c);
  ExpectNoData(tables.Map(2 * c, c), ClusterKind::kUnallocated, c);
}

TEST(ClusterMapTest, OffsetZeroWithoutADataFileIsNeverData) {
  Tables tables(16, 1);
  tables.Set(0, kCopied);
  ExpectNoData(tables.Map(0, 1), ClusterKind::kUnallocated, 1);
}

TEST(ClusterMapTest, CompressedClusterInADataFileIsRefused) {
  Tables tables(16, 1);
  tables.header.incompatible_features |= kExternalDataFile;
  tables.Set(0, kCompressed | 0x1000);
  EXPECT_THAT(tables.Refusal(0), HasSubstr("external data file"));
}

// ---- Extended L2 entries

constexpr uint64_t kSubclusterBytes = 2048;  // With clusters of 64 KiB.

uint64_t Allocated(unsigned subcluster) { return uint64_t{1} << subcluster; }
uint64_t Zero(unsigned subcluster) { return uint64_t{1} << (32 + subcluster); }

TEST(ExtendedL2Test, EverySubclusterFollowsItsTwoBits) {
  for (unsigned s = 0; s < 32; ++s) {
    Tables tables(16, 1, /*extended=*/true);
    const uint64_t c = tables.cluster();
    const uint64_t at = c + s * kSubclusterBytes;
    tables.Set(0, 6 * c, Allocated(s));
    tables.Set(1, 7 * c, Allocated(s));
    tables.Set(2, 8 * c, Zero(s));
    tables.Set(3, 0, Zero(s));
    ExpectData(tables.Map(at, kSubclusterBytes), 7 * c + at - c,
               kSubclusterBytes);
    ExpectNoData(tables.Map(at + c, kSubclusterBytes), ClusterKind::kZero,
                 kSubclusterBytes);
    ExpectNoData(tables.Map(at + 2 * c, kSubclusterBytes), ClusterKind::kZero,
                 kSubclusterBytes);
    // Its neighbours are not touched.
    if (s != 0) {
      ExpectNoData(tables.Map(at - 1, 1), ClusterKind::kUnallocated, 1);
    }
    if (s != 31) {
      ExpectNoData(tables.Map(at + kSubclusterBytes, 1),
                   ClusterKind::kUnallocated, 1);
    }
  }
}

TEST(ExtendedL2Test, SubclustersOfOneKindMakeOneRun) {
  Tables tables(16, 1, /*extended=*/true);
  const uint64_t c = tables.cluster();
  // Data in 0 to 3, zeros in 4 to 5, nothing in 6 to 30, data in 31.
  tables.Set(0, 7 * c, 0x8000'000f | uint64_t{0x30} << 32);
  tables.Set(1, 8 * c, 0xffff'ffff);
  tables.Set(2, 9 * c, 0x0000'0001);
  tables.Set(3, 0, 0);
  const uint64_t s = kSubclusterBytes;
  ExpectData(tables.Map(5, 4 * c), 7 * c + 5, 4 * s - 5);
  ExpectNoData(tables.Map(4 * s, 4 * c), ClusterKind::kZero, 2 * s);
  ExpectNoData(tables.Map(6 * s, 4 * c), ClusterKind::kUnallocated, 25 * s);
  ExpectData(tables.Map(31 * s, 3 * c), 7 * c + 31 * s, c + 2 * s);
  // The third cluster has a place for its other subclusters, the fourth none.
  ExpectNoData(tables.Map(2 * c + s, 2 * c - s), ClusterKind::kUnallocated,
               c - s);
}

TEST(ExtendedL2Test, SubclusterRunsEndWhereTheHostOffsetJumps) {
  Tables tables(16, 1, /*extended=*/true);
  const uint64_t c = tables.cluster();
  tables.Set(0, 7 * c, 0xffff'ffff);
  tables.Set(1, 9 * c, 0xffff'ffff);
  ExpectData(tables.Map(0, 2 * c), 7 * c, c);
}

TEST(ExtendedL2Test, SubclusterBothAllocatedAndZeroIsRefused) {
  Tables tables(16, 1, /*extended=*/true);
  const uint64_t c = tables.cluster();
  tables.Set(1, 7 * c, Allocated(5) | Zero(5));
  const std::string text = tables.Refusal(c + 5 * kSubclusterBytes);
  EXPECT_THAT(text, HasSubstr("L2 entry (byte 131088)"));
  EXPECT_THAT(text, HasSubstr("subcluster 5 is both allocated and zero"));
}

TEST(ExtendedL2Test, AllocatedSubclusterWithoutAClusterIsRefused) {
  Tables tables(16, 1, /*extended=*/true);
  tables.Set(0, 0, Allocated(31));
  EXPECT_THAT(tables.Refusal(31 * kSubclusterBytes),
              HasSubstr("subcluster 31 is allocated"));
}

TEST(ExtendedL2Test, LowBitIsNoZeroFlag) {
  Tables tables(16, 1, /*extended=*/true);
  const uint64_t c = tables.cluster();
  tables.Set(0, 7 * c | kZeroFlag, 0xffff'ffff);
  ExpectData(tables.Map(0, c), 7 * c, c);
}

TEST(ExtendedL2Test, DataFileOffsetZeroIsAPlaceForSubclusters) {
  Tables tables(16, 1, /*extended=*/true);
  tables.header.incompatible_features |= kExternalDataFile;
  tables.Set(0, kCopied, 0xffff'ffff);
  ExpectData(tables.Map(0, tables.cluster()), 0, tables.cluster());
}

TEST(ExtendedL2Test, BitmapOfACompressedClusterMeansNothing) {
  Tables tables(16, 1, /*extended=*/true);
  tables.Set(0, kCompressed | 0x1000, UINT64_MAX);
  ExpectNoData(tables.Map(0, tables.cluster()), ClusterKind::kCompressed,
               tables.cluster());
}

TEST(ExtendedL2Test, TableHoldsHalfAsManyEntries) {
  Tables tables(14, 2, /*extended=*/true);
  const uint64_t c = tables.cluster();
  EXPECT_EQ(tables.header.l2_coverage(), 1024 * c);
  tables.Set(1023, 70 * c, 0xffff'ffff);
  tables.Set(1024, 80 * c, 0xffff'ffff);  // First of the next table.
  ExpectData(tables.Map(1023 * c, 10 * c), 70 * c, c);
  ExpectData(tables.Map(1024 * c, c), 80 * c, c);
}

// ---- Compressed cluster descriptors

struct Split {
  uint32_t cluster_bits;
  unsigned offset_bits;
};

class CompressedDescriptor : public testing::TestWithParam<Split> {};

INSTANTIATE_TEST_SUITE_P(ClusterBits, CompressedDescriptor,
                         testing::Values(Split{9, 61}, Split{16, 54},
                                         Split{21, 49}));

TEST_P(CompressedDescriptor, OffsetAndSectorsAreSplitByTheClusterSize) {
  const auto [cluster_bits, offset_bits] = GetParam();
  Tables tables(cluster_bits, 1);
  const uint64_t most_sectors = uint64_t{1} << (62 - offset_bits);
  for (const uint64_t offset : {uint64_t{512}, uint64_t{777}, uint64_t{1023}}) {
    for (const uint64_t sectors : {uint64_t{1}, uint64_t{2}, most_sectors}) {
      Tables fresh(cluster_bits, 1);
      fresh.Set(0, kCompressed | (sectors - 1) << offset_bits | offset);
      const Mapping mapping = fresh.Map(0, 1);
      EXPECT_EQ(mapping.kind, ClusterKind::kCompressed);
      EXPECT_EQ(mapping.host.value, offset);
      EXPECT_EQ(mapping.compressed_size, sectors * 512 - offset % 512);
    }
  }
}

TEST_P(CompressedDescriptor, SizeIsAtMostTwoClusters) {
  const auto [cluster_bits, offset_bits] = GetParam();
  Tables tables(cluster_bits, 1);
  const uint64_t size_mask = (kCompressed - 1) >> offset_bits << offset_bits;
  tables.Set(0, kCompressed | size_mask | 512);
  EXPECT_EQ(tables.Map(0, 1).compressed_size, 2 * tables.cluster());
}

TEST_P(CompressedDescriptor, HighestOffsetBitIsOffsetAndBehindTheFile) {
  const auto [cluster_bits, offset_bits] = GetParam();
  Tables tables(cluster_bits, 1);
  tables.Set(0, kCompressed | uint64_t{1} << (offset_bits - 1));
  EXPECT_THAT(tables.Refusal(0), HasSubstr("compressed data begins behind"));
}

TEST(ClusterMapTest, CompressedDataMayBeginInTheLastByteOfTheFileOnly) {
  Tables tables(16, 1);
  const uint64_t size = tables.file->size();
  tables.Set(0, kCompressed | (size - 1));
  tables.Set(1, kCompressed | size);
  EXPECT_EQ(tables.Map(0, 1).host.value, size - 1);
  EXPECT_THAT(tables.Refusal(tables.cluster()),
              HasSubstr("L2 entry (byte 131080)"));
}

// ---- Entries that lie

TEST(ClusterMapTest, MisalignedL2TableIsNamedInTheError) {
  Tables tables(16, 2);
  tables.SetL1(1, (tables.L2TableOf(1) + 512) | kCopied);
  const std::string text = tables.Refusal(tables.header.l2_coverage());
  EXPECT_THAT(text, HasSubstr("disk.qcow2: L1 entry 1 (byte 65544) is "
                              "0x8000000000030200"));
  EXPECT_THAT(text, HasSubstr("65536-byte cluster"));
}

TEST(ClusterMapTest, L2TableMustEndInsideTheFile) {
  Tables tables(16, 1);
  tables.file->bytes().resize(3 * tables.cluster() - 1);  // One byte short.
  EXPECT_THAT(tables.Refusal(0), HasSubstr("L1 entry 0 (byte 65536)"));
}

TEST(ClusterMapTest, L2TableAtTheHighestOffsetIsRefused) {
  Tables tables(9, 1);
  tables.SetL1(0, 0x00ff'ffff'ffff'fe00);
  EXPECT_THAT(tables.Refusal(0), HasSubstr("ends behind the 1536-byte file"));
}

TEST(ClusterMapTest, MisalignedClusterIsNamedInTheError) {
  for (const bool extended : {false, true}) {
    Tables tables(16, 1, extended);
    tables.Set(2, 7 * tables.cluster() + 0x1000, 0xffff'ffff);
    EXPECT_THAT(tables.Refusal(2 * tables.cluster()),
                HasSubstr(extended ? "L2 entry (byte 131104) is 0x71000"
                                   : "L2 entry (byte 131088) is 0x71000"));
  }
}

TEST(ClusterMapTest, MisalignedClusterIsRefusedEvenUnderTheZeroFlag) {
  Tables tables(16, 1);
  tables.Set(0, 0x71000 | kZeroFlag);
  EXPECT_THAT(tables.Refusal(0), HasSubstr("is 0x71001"));
}

TEST(ClusterMapTest, DataClusterBehindTheFileIsLeftToTheReader) {
  Tables tables(16, 1);
  tables.Set(0, 0x00ff'ffff'ffff'0000);
  ExpectData(tables.Map(0, 1), 0x00ff'ffff'ffff'0000, 1);
}

TEST(ClusterMapTest, BadEntryInTheMiddleOfARunIsStillNamed) {
  Tables tables(16, 1);
  const uint64_t c = tables.cluster();
  tables.Set(0, 7 * c);
  tables.Set(1, 8 * c + 512);
  EXPECT_THAT(ThrownText<CorruptImage>([&] { tables.Map(0, 2 * c); }),
              HasSubstr("L2 entry (byte 131080)"));
  ExpectData(tables.Map(0, c), 7 * c, c);  // The good one alone is fine.
}

TEST(ClusterMapTest, FailingHostReadReachesTheCaller) {
  Tables tables(16, 1);
  tables.map();
  tables.file->FailReads(2 * tables.cluster(), 3 * tables.cluster());
  EXPECT_THROW(tables.Map(0, 1), IoError);
}

TEST(ReadL1TableTest, EmptyTableReadsNothing) {
  MemoryDevice file(Bytes(512));
  EXPECT_TRUE(ReadL1Table(file, 512, 0).entries.empty());
  EXPECT_EQ(file.reads(), 0U);
}

TEST(ReadL1TableTest, EntriesComeInHostByteOrder) {
  MemoryDevice file(Bytes(1024));
  StoreNumber(file.bytes(), 520, 8, 0x0102'0304'0506'0708);
  const L1Table table = ReadL1Table(file, 512, 2);
  EXPECT_EQ(table.offset.value, 512U);
  EXPECT_EQ(table.entries, (std::vector<uint64_t>{0, 0x0102'0304'0506'0708}));
}

}  // namespace
}  // namespace pellucid::qcow2
