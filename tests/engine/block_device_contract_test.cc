// What every BlockDevice promises, on every layer of the stack.

#include <gtest/gtest.h>
#include <libdeflate.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "crypto/sector_cipher.h"
#include "engine/block_device.h"
#include "engine/file_device.h"
#include "engine/luks/luks_device.h"
#include "engine/qcow2/qcow2_image.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"

namespace pellucid {
namespace {

constexpr uint64_t kCluster = 4096;
constexpr uint64_t kSector = 512;
// Not a whole number of clusters.
constexpr uint64_t kDiskSize = 40 * kCluster + 3 * kSector;

// A device and what it must read as.
struct Layer {
  std::unique_ptr<BlockDevice> device;
  Bytes model;
  bool expect_holes = false;
};

std::unique_ptr<crypto::SectorCipher> Cipher(const std::string& mode,
                                             const std::string& iv) {
  const Bytes key = Noise(mode == "xts" ? 64 : 16, 99);
  return crypto::MakeSectorCipher(
      {.cipher = "aes", .mode = mode, .iv = iv, .iv_hash = ""}, key);
}

Bytes Encrypted(const crypto::SectorCipher& cipher, uint64_t first_sector,
                const Bytes& plain) {
  Bytes out(plain.size());
  cipher.Encrypt(first_sector, plain, out);
  return out;
}

// Zeros in every fifth cluster.
Bytes ModelDisk(uint64_t size, uint64_t seed) {
  Bytes model = Noise(size, seed);
  for (uint64_t at = 0; at < size; at += 5 * kCluster) {
    std::fill_n(model.begin() + static_cast<ptrdiff_t>(at),
                std::min(kCluster, size - at), std::byte{0});
  }
  return model;
}

// Writes a qcow2 image into memory, cluster by cluster of the model.
class Qcow2Writer {
 public:
  enum class Entry { kData, kZero, kUnallocated, kCompressed };

  explicit Qcow2Writer(uint64_t disk_size) {
    header_.version = 3;
    header_.cluster_bits = 12;
    header_.size = disk_size;
    header_.l1_table_offset = kCluster;
    header_.l1_size = 1;
    file_.resize(3 * kCluster);
    StoreNumber(file_, kCluster, 8, 2 * kCluster);
  }

  qcow2::Header& header() { return header_; }

  void Add(Entry entry, std::span<const std::byte> plain,
           const crypto::SectorCipher* cipher) {
    uint64_t descriptor = 0;
    if (entry == Entry::kZero) descriptor = 1;
    if (entry == Entry::kCompressed) descriptor = AddCompressed(plain);
    if (entry == Entry::kData) {
      // Every third cluster leaves a gap, so that not all runs are one.
      const uint64_t gap = next_ % 3 == 0 ? kCluster : 0;
      const uint64_t host =
          (file_.size() + kCluster - 1) / kCluster * kCluster + gap;
      Bytes content(plain.begin(), plain.end());
      content.resize(kCluster);
      if (cipher != nullptr) {
        const bool guest = header_.crypt_method == qcow2::CryptMethod::kAes;
        content = Encrypted(
            *cipher, (guest ? next_ * kCluster : host) / kSector, content);
      }
      file_.resize(host);
      file_.insert(file_.end(), content.begin(), content.end());
      descriptor = host | uint64_t{1} << 63;
    }
    StoreNumber(file_, 2 * kCluster + next_ * 8, 8, descriptor);
    ++next_;
  }

  std::unique_ptr<BlockDevice> Finish(
      std::unique_ptr<crypto::SectorCipher> cipher,
      std::unique_ptr<BlockDevice> backing) && {
    qcow2::Qcow2Image::Parts parts;
    parts.file_name = "disk.qcow2";
    parts.file = std::make_unique<MemoryDevice>(std::move(file_));
    parts.header = header_;
    parts.cipher = std::move(cipher);
    parts.backing = std::move(backing);
    parts.l2_cache_bytes = 1 << 16;
    return std::make_unique<qcow2::Qcow2Image>(std::move(parts));
  }

 private:
  uint64_t AddCompressed(std::span<const std::byte> plain) {
    Bytes whole(plain.begin(), plain.end());
    whole.resize(kCluster);
    libdeflate_compressor* compressor = libdeflate_alloc_compressor(6);
    Bytes packed(2 * kCluster);
    packed.resize(libdeflate_deflate_compress(
        compressor, whole.data(), whole.size(), packed.data(), packed.size()));
    libdeflate_free_compressor(compressor);
    const uint64_t host = file_.size();
    file_.insert(file_.end(), packed.begin(), packed.end());
    const uint64_t sectors = (host + packed.size() - 1) / 512 - host / 512;
    return uint64_t{1} << 62 | sectors << (62 - 4) | host;
  }

  qcow2::Header header_;
  Bytes file_;
  uint64_t next_ = 0;
};

using Entry = Qcow2Writer::Entry;

// A qcow2 image of the model disk, whose cluster n is stored as kinds[n mod
// size] says; the first of five is zeros in the model.
Layer Qcow2Layer(const std::vector<Entry>& kinds, qcow2::CryptMethod method,
                 bool with_backing) {
  Layer layer;
  layer.model = ModelDisk(kDiskSize, 1);
  layer.expect_holes = true;
  std::unique_ptr<crypto::SectorCipher> cipher;
  if (method == qcow2::CryptMethod::kLuks) cipher = Cipher("xts", "plain64");
  if (method == qcow2::CryptMethod::kAes) cipher = Cipher("cbc", "plain64");
  Qcow2Writer writer(kDiskSize);
  writer.header().crypt_method = method;
  // The backing device ends early and inside a sector.
  Bytes backing = ModelDisk(22 * kCluster + 700, 2);
  for (uint64_t n = 0; n * kCluster < kDiskSize; ++n) {
    const auto cluster =
        std::span(layer.model)
            .subspan(n * kCluster,
                     std::min(kCluster, kDiskSize - n * kCluster));
    const Entry entry = kinds[n % kinds.size()];
    writer.Add(entry, cluster, cipher.get());
    if (entry == Entry::kZero) std::ranges::fill(cluster, std::byte{0});
    if (entry == Entry::kUnallocated) {
      for (size_t i = 0; i < cluster.size(); ++i) {
        const size_t at = n * kCluster + i;
        cluster[i] =
            with_backing && at < backing.size() ? backing[at] : std::byte{0};
      }
    }
  }
  layer.device = std::move(writer).Finish(
      std::move(cipher),
      with_backing ? std::make_unique<MemoryDevice>(std::move(backing), kSector)
                   : nullptr);
  return layer;
}

// A LUKS payload behind 5 sectors of something else, and with a rest.
Layer LuksLayer(bool over_qcow2, size_t sector_size = kSector) {
  Layer layer;
  layer.model = Noise(30 * kCluster, 3);
  const Bytes key = Noise(64, 99);
  luks::Segment segment;
  segment.offset = 5 * kSector;
  segment.encryption.emplace();
  segment.encryption->cipher = "aes";
  segment.encryption->mode = "xts-plain64";
  segment.encryption->sector_size = sector_size;
  const auto cipher =
      crypto::MakeSectorCipher(segment.encryption->Spec(), key, sector_size);
  Bytes payload = Noise(segment.offset, 4);
  const Bytes ciphertext = Encrypted(*cipher, 0, layer.model);
  payload.insert(payload.end(), ciphertext.begin(), ciphertext.end());
  payload.resize(payload.size() + 100);
  std::unique_ptr<BlockDevice> below;
  if (over_qcow2) {
    Qcow2Writer writer(payload.size());
    for (uint64_t at = 0; at < payload.size(); at += kCluster) {
      // What is not allocated is zeros of ciphertext.
      const bool stored = at / kCluster % 4 != 2;
      const auto cluster = std::span(payload).subspan(
          at, std::min(kCluster, payload.size() - at));
      if (!stored) std::ranges::fill(cluster, std::byte{0});
      writer.Add(stored ? Entry::kData : Entry::kUnallocated, cluster, nullptr);
    }
    below = std::move(writer).Finish(nullptr, nullptr);
    cipher->Decrypt(
        0, std::span(payload).subspan(segment.offset, layer.model.size()),
        layer.model);
  } else {
    below = std::make_unique<MemoryDevice>(std::move(payload));
  }
  luks::VolumeHeader header;
  header.segments.push_back(segment);
  layer.device =
      std::make_unique<luks::LuksDevice>(std::move(below), header, key);
  return layer;
}

Layer FileLayer() {
  static const ScratchFolder folder;
  Layer layer;
  layer.model = ModelDisk(kDiskSize + 77, 5);
  WriteHostFile(folder / "disk.raw", layer.model);
  layer.device =
      FileDevice::Open(folder / "disk.raw", FileDevice::Sharing::kExclusive);
  return layer;
}

struct NamedLayer {
  const char* name;
  std::function<Layer()> make;
};

void PrintTo(const NamedLayer& layer, std::ostream* out) { *out << layer.name; }

class BlockDeviceContract : public testing::TestWithParam<NamedLayer> {
 protected:
  BlockDeviceContract() : layer_(GetParam().make()) {}

  BlockDevice& device() { return *layer_.device; }
  const Bytes& model() const { return layer_.model; }
  bool expect_holes() const { return layer_.expect_holes; }

  bool ReadsAsModel(uint64_t offset, uint64_t length) {
    // A guard on either side shows a write outside the span.
    Bytes buffer(length + 32, std::byte{0xa5});
    device().Read(offset, std::span(buffer).subspan(16, length));
    const auto begin = buffer.begin() + 16;
    const auto end = begin + static_cast<ptrdiff_t>(length);
    const auto is_guard = [](std::byte b) { return b == std::byte{0xa5}; };
    return std::equal(begin, end,
                      model().begin() + static_cast<ptrdiff_t>(offset)) &&
           std::all_of(buffer.begin(), begin, is_guard) &&
           std::all_of(end, buffer.end(), is_guard);
  }

 private:
  Layer layer_;
};

const std::vector<Entry> kMixed = {
    Entry::kZero,        Entry::kData,        Entry::kData, Entry::kData,
    Entry::kUnallocated, Entry::kUnallocated, Entry::kData};
const std::vector<Entry> kCompressedMixed = {
    Entry::kCompressed, Entry::kData, Entry::kCompressed, Entry::kCompressed,
    Entry::kUnallocated};

INSTANTIATE_TEST_SUITE_P(
    Layers, BlockDeviceContract,
    testing::Values(
        NamedLayer{"File", FileLayer},
        NamedLayer{"Qcow2",
                   [] {
                     return Qcow2Layer(kMixed, qcow2::CryptMethod::kNone,
                                       false);
                   }},
        NamedLayer{"Qcow2EmbeddedLuks",
                   [] {
                     return Qcow2Layer(kMixed, qcow2::CryptMethod::kLuks,
                                       false);
                   }},
        NamedLayer{
            "Qcow2LegacyAes",
            [] { return Qcow2Layer(kMixed, qcow2::CryptMethod::kAes, false); }},
        NamedLayer{
            "Qcow2OverBacking",
            [] { return Qcow2Layer(kMixed, qcow2::CryptMethod::kNone, true); }},
        NamedLayer{
            "Qcow2LuksOverBacking",
            [] { return Qcow2Layer(kMixed, qcow2::CryptMethod::kLuks, true); }},
        NamedLayer{"Qcow2Compressed",
                   [] {
                     return Qcow2Layer(kCompressedMixed,
                                       qcow2::CryptMethod::kNone, false);
                   }},
        NamedLayer{"Qcow2LuksCompressed",
                   [] {
                     return Qcow2Layer(kCompressedMixed,
                                       qcow2::CryptMethod::kLuks, true);
                   }},
        NamedLayer{"LuksOverRaw", [] { return LuksLayer(false); }},
        NamedLayer{"LuksWithLargeSectors",
                   [] { return LuksLayer(false, 4096); }},
        NamedLayer{"LuksOverQcow2", [] { return LuksLayer(true); }}),
    [](const auto& info) { return info.param.name; });

TEST_P(BlockDeviceContract, SizeIsThatOfTheContent) {
  EXPECT_EQ(device().size(), model().size());
}

TEST_P(BlockDeviceContract, EmptyReadIsFineEverywhere) {
  for (const uint64_t at : {uint64_t{0}, kSector, kCluster, device().size()}) {
    EXPECT_NO_THROW(device().Read(at, {}));
  }
}

TEST_P(BlockDeviceContract, WholeContentIsReadAtOnce) {
  EXPECT_TRUE(ReadsAsModel(0, model().size()));
}

TEST_P(BlockDeviceContract, LastByteIsRead) {
  EXPECT_TRUE(ReadsAsModel(model().size() - 1, 1));
}

TEST_P(BlockDeviceContract, EveryAlignmentAroundBordersReadsTheSame) {
  std::vector<uint64_t> edges;
  for (const uint64_t border :
       {uint64_t{0}, kSector, 2 * kSector, kCluster, kCluster + kSector,
        4 * kCluster, 5 * kCluster, 7 * kCluster, 22 * kCluster,
        22 * kCluster + 700, 23 * kCluster, 29 * kCluster, 30 * kCluster}) {
    for (const uint64_t at : {border - 1, border, border + 1, border + 15}) {
      if (at <= model().size()) edges.push_back(at);
    }
  }
  for (const uint64_t begin : edges) {
    for (const uint64_t end : edges) {
      if (end <= begin) continue;
      ASSERT_TRUE(ReadsAsModel(begin, end - begin)) << begin << " to " << end;
    }
  }
}

TEST_P(BlockDeviceContract, ManyThreadsReadTheSame) {
  std::atomic<int> wrong{0};
  std::vector<std::jthread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937_64 random(seed);
      for (int i = 0; i < 150; ++i) {
        const uint64_t offset = random() % model().size();
        const uint64_t most = std::min<uint64_t>(model().size() - offset,
                                                 uint64_t{1} << random() % 16);
        if (!ReadsAsModel(offset, 1 + random() % most)) ++wrong;
      }
    });
  }
  threads.clear();  // Joins them.
  EXPECT_EQ(wrong, 0);
}

TEST_P(BlockDeviceContract, ExtentsCoverTheDeviceAndHolesReadAsZeros) {
  const uint64_t size = model().size();
  for (const uint64_t most : {uint64_t{1} << 40, kCluster, uint64_t{700}}) {
    uint64_t holes = 0;
    for (uint64_t at = 0; at < size;) {
      const Extent extent = device().ExtentAt(at, most);
      ASSERT_GT(extent.length, 0U) << "at " << at;
      ASSERT_LE(extent.length, most) << "at " << at;
      ASSERT_LE(extent.length, size - at) << "at " << at;
      if (extent.is_hole) {
        holes += extent.length;
        ASSERT_TRUE(std::all_of(
            model().begin() + static_cast<ptrdiff_t>(at),
            model().begin() + static_cast<ptrdiff_t>(at + extent.length),
            [](std::byte b) { return b == std::byte{0}; }))
            << extent.length << " bytes at " << at;
      }
      at += extent.length;
    }
    if (expect_holes()) {
      EXPECT_NE(holes, 0U);
    }
  }
}

TEST_P(BlockDeviceContract, ExtentsFromEveryByteOfABorderAgree) {
  // A hole that begins at a byte is one from each byte behind it, too.
  for (uint64_t at = 4 * kCluster - 3; at < 4 * kCluster + 3; ++at) {
    const Extent here = device().ExtentAt(at, 2);
    const Extent next = device().ExtentAt(at + 1, 1);
    if (here.length == 2) {
      EXPECT_EQ(here.is_hole, next.is_hole) << at;
    }
  }
}

}  // namespace
}  // namespace pellucid
