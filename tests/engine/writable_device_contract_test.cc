// What WritableDevice promises, on every layer that can be written: any
// alignment, any mixture of threads, against a plain vector as the model.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/luks/luks_device.h"
#include "engine/writable_device.h"
#include "engine/writable_file_device.h"
#include "tests/engine/growing_memory_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/opened_image_fixture.h"

namespace pellucid {
namespace {

constexpr size_t kKeyBytes = 32;
// More than two regions of LuksDevice, and not a whole number of them.
constexpr uint64_t kDiskSize = (600 << 10) + 8192;

// A layer under test. To add one: a function that makes it, and a line in
// INSTANTIATE_TEST_SUITE_P below. Where a host file is simulated, its requests
// are cut into steps of kStep bytes, so that an unprotected sector is torn.
struct WritableLayer {
  std::unique_ptr<WritableDevice> device;
  // Opens what `device` has written, independently of its state in memory.
  // Called behind a Flush(); `device` is destroyed then.
  std::function<std::unique_ptr<BlockDevice>(std::unique_ptr<WritableDevice>)>
      reopen;
};
constexpr size_t kStep = 24;

// A segment of `size` bytes, or up to the end, at `offset` of the payload.
luks::Segment CryptSegment(uint64_t offset, std::optional<uint64_t> size,
                           size_t sector_size, uint64_t iv_tweak,
                           const char* mode) {
  luks::Segment segment;
  segment.offset = offset;
  segment.size = size;
  segment.iv_tweak = iv_tweak;
  segment.encryption.emplace();
  segment.encryption->cipher = "aes";
  segment.encryption->mode = mode;
  segment.encryption->sector_size = sector_size;
  return segment;
}

luks::VolumeHeader OneSegment(size_t sector_size, const char* mode) {
  luks::VolumeHeader header;
  // Off the alignment of pages, and behind bytes that are not ours.
  header.segments.push_back(
      CryptSegment(5 * 512, std::nullopt, sector_size, 0, mode));
  return header;
}

// Encrypted, linear, encrypted; neither in the order of the plaintext nor
// without bytes between them.
luks::VolumeHeader ThreeSegments() {
  luks::VolumeHeader header;
  header.segments.push_back(
      CryptSegment(512 << 10, 96 << 10, 4096, 12345, "xts-plain64"));
  luks::Segment linear;
  linear.offset = 7 * 512;
  linear.size = 101 * 512;
  header.segments.push_back(linear);
  header.segments.push_back(
      CryptSegment(640 << 10, std::nullopt, 512, 8, "cbc-essiv:sha256"));
  return header;
}

// `header` describes a payload of some length; the rest of a sector is at its
// end.
WritableLayer LuksLayer(luks::VolumeHeader header, uint64_t payload_bytes) {
  const Bytes key = Noise(kKeyBytes, 9);
  auto payload =
      std::make_unique<GrowingMemoryDevice>(Noise(payload_bytes, 4), kStep);
  const GrowingMemoryDevice* const below = payload.get();
  WritableLayer layer;
  layer.device = std::make_unique<luks::LuksDevice>(
      std::unique_ptr<WritableDevice>(std::move(payload)), header, key);
  layer.reopen = [=](std::unique_ptr<WritableDevice> device) {
    auto copy = std::make_unique<GrowingMemoryDevice>(below->bytes());
    device.reset();
    return std::make_unique<luks::LuksDevice>(
        std::unique_ptr<BlockDevice>(std::move(copy)), header, key);
  };
  return layer;
}

WritableLayer FileLayer() {
  auto folder = std::make_shared<ScratchFolder>();
  WriteHostFile(*folder / "disk", Noise(kDiskSize + 77, 5));
  WritableLayer layer;
  layer.device = WritableFileDevice::Open(*folder / "disk");
  layer.reopen = [folder](std::unique_ptr<WritableDevice> device) {
    device.reset();
    return WritableFileDevice::Open(*folder / "disk");
  };
  return layer;
}

struct NamedLayer {
  const char* name;
  std::function<WritableLayer()> make;
};

void PrintTo(const NamedLayer& layer, std::ostream* out) { *out << layer.name; }

class WritableDeviceContract : public testing::TestWithParam<NamedLayer> {
 protected:
  WritableDeviceContract()
      : layer_(GetParam().make()), model_(ReadAll(device())) {}

  WritableDevice& device() { return *layer_.device; }
  Bytes& model() { return model_; }
  uint64_t size() const { return model_.size(); }

  void Write(uint64_t offset, const Bytes& data) {
    device().Write(offset, data);
    std::ranges::copy(data, model_.begin() + static_cast<ptrdiff_t>(offset));
  }
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) {
    device().WriteZeroes(offset, length, mode);
    std::fill_n(model_.begin() + static_cast<ptrdiff_t>(offset), length,
                std::byte{0});
  }

  // Everything is as the model has it, now and when it is opened again.
  void CheckAll() {
    ASSERT_EQ(FirstDifference(ReadAll(device()), model_), "");
    device().Flush();
    const auto again = layer_.reopen(std::move(layer_.device));
    ASSERT_EQ(again->size(), size());
    ASSERT_EQ(FirstDifference(ReadAll(*again, 12345), model_), "");
  }

 private:
  WritableLayer layer_;
  Bytes model_;
};

INSTANTIATE_TEST_SUITE_P(
    Layers, WritableDeviceContract,
    testing::Values(
        NamedLayer{"File", FileLayer},
        NamedLayer{"Memory",
                   [] {
                     WritableLayer layer;
                     auto made = std::make_unique<GrowingMemoryDevice>(
                         Noise(kDiskSize + 5, 6), kStep);
                     const auto* const memory = made.get();
                     layer.device = std::move(made);
                     layer.reopen = [memory](auto device) {
                       auto copy = std::make_unique<GrowingMemoryDevice>(
                           memory->bytes());
                       device.reset();
                       return copy;
                     };
                     return layer;
                   }},
        NamedLayer{"LuksXts",
                   [] {
                     return LuksLayer(OneSegment(512, "xts-plain64"),
                                      kDiskSize + 5 * 512 + 100);
                   }},
        // Here a byte changes all that follow in its sector.
        NamedLayer{"LuksCbc",
                   [] {
                     return LuksLayer(OneSegment(512, "cbc-essiv:sha256"),
                                      kDiskSize + 5 * 512 + 100);
                   }},
        NamedLayer{"LuksLargeSectors",
                   [] {
                     return LuksLayer(OneSegment(4096, "xts-plain64"),
                                      kDiskSize + 5 * 512 + 100);
                   }},
        NamedLayer{"LuksManySegments",
                   [] {
                     return LuksLayer(ThreeSegments(),
                                      (640 << 10) + kDiskSize + 99);
                   }}),
    [](const auto& info) { return info.param.name; });

TEST_P(WritableDeviceContract, NothingWrittenIsNothingChanged) {
  for (const uint64_t at : {uint64_t{0}, uint64_t{4096}, size()}) {
    device().Write(at, {});
    device().WriteZeroes(at, 0, ZeroMode::kFreeSpace);
  }
  CheckAll();
}

TEST_P(WritableDeviceContract, WholeDeviceIsWrittenAtOnce) {
  Write(0, Noise(size(), 77));
  CheckAll();
}

TEST_P(WritableDeviceContract, WholeDeviceBecomesZeros) {
  WriteZeroes(0, size(), ZeroMode::kFreeSpace);
  CheckAll();
}

TEST_P(WritableDeviceContract, EveryAlignmentAroundBordersIsWritten) {
  std::vector<uint64_t> edges;
  for (const uint64_t border : std::initializer_list<uint64_t>{
           512, 1024, 4096, 8192, 96 << 10, (96 << 10) + 101 * 512, 128 << 10,
           256 << 10, 512 << 10}) {
    for (const uint64_t at : {border - 1, border, border + 1, border + 15}) {
      edges.push_back(at);
    }
  }
  uint64_t seed = 0;
  for (const uint64_t begin : edges) {
    for (const uint64_t end : edges) {
      if (end <= begin) continue;
      const uint64_t length = end - begin;
      if (length > 20000 && ++seed % 5 != 0) continue;
      switch (++seed % 3) {
        case 0:
          WriteZeroes(begin, length, ZeroMode::kKeepSpace);
          break;
        case 1:
          WriteZeroes(begin, length, ZeroMode::kFreeSpace);
          break;
        default:
          Write(begin, Noise(length, seed));
      }
      // With what is beside it.
      const uint64_t from = begin - 400;
      Bytes found(length + 800);
      device().Read(from, found);
      ASSERT_TRUE(std::equal(found.begin(), found.end(),
                             model().begin() + static_cast<ptrdiff_t>(from)))
          << begin << " to " << end;
    }
  }
  CheckAll();
}

TEST_P(WritableDeviceContract, LastByteIsWritten) {
  Write(size() - 1, Noise(1, 3));
  WriteZeroes(size() - 3, 1, ZeroMode::kKeepSpace);
  CheckAll();
}

TEST_P(WritableDeviceContract, RandomOperationsAgreeWithTheModel) {
  std::mt19937_64 random(20);
  for (int i = 0; i < 1500; ++i) {
    const uint64_t offset = random() % size();
    const uint64_t length =
        1 + random() % std::min<uint64_t>(size() - offset,
                                          uint64_t{1} << random() % 17);
    switch (random() % 4) {
      case 0:
        WriteZeroes(
            offset, length,
            random() % 2 != 0 ? ZeroMode::kKeepSpace : ZeroMode::kFreeSpace);
        break;
      case 1: {
        Bytes found(length);
        device().Read(offset, found);
        ASSERT_TRUE(
            std::equal(found.begin(), found.end(),
                       model().begin() + static_cast<ptrdiff_t>(offset)))
            << "step " << i << ": " << length << " bytes at " << offset;
        break;
      }
      default:
        Write(offset, Noise(length, random()));
        if (random() % 50 == 0) device().Flush();
    }
  }
  CheckAll();
}

// Threads own every fourth range each, of odd lengths, so that they share
// sectors and clusters, never bytes. Each finds its own bytes as it left them,
// at any time, whatever happens beside them.
TEST_P(WritableDeviceContract, ThreadsOnAdjacentRangesLoseNothing) {
  constexpr unsigned kThreads = 4;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;  // Offset and length.
  std::mt19937_64 random(30);
  for (uint64_t at = 0; at < size() && ranges.size() < 400;) {
    const uint64_t length = std::min(size() - at, 1 + random() % 700);
    ranges.emplace_back(at, length);
    at += length;
  }
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (unsigned thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 own(thread);
      for (int i = 0; i < 600; ++i) {
        const auto [offset, length] =
            ranges[own() % (ranges.size() / kThreads) * kThreads + thread];
        const auto mine = model().begin() + static_cast<ptrdiff_t>(offset);
        Bytes found(length);
        device().Read(offset, found);
        if (!std::equal(found.begin(), found.end(), mine)) ++wrong;
        if (own() % 5 == 0) {
          device().WriteZeroes(offset, length, ZeroMode::kFreeSpace);
          std::fill_n(mine, length, std::byte{0});
        } else {
          const Bytes data = Noise(length, own());
          device().Write(offset, data);
          std::ranges::copy(data, mine);
        }
      }
    });
  }
  threads.clear();  // Joins them.
  EXPECT_EQ(wrong, 0);
  CheckAll();
}

// All write whole sectors at one place: one of them wins in each, entirely.
TEST_P(WritableDeviceContract, OfOverlappingWritesOneWins) {
  constexpr uint64_t kPlace = 200 << 10;
  constexpr uint64_t kLength = 8 << 10;
  constexpr uint8_t kThreads = 3;
  std::atomic<int> wrong = 0;
  const auto is_of_nobody = [](std::byte b) {
    return b < std::byte{1} || b > std::byte{kThreads};
  };
  device().Write(kPlace, Bytes(kLength, std::byte{1}));
  std::vector<std::jthread> threads;
  for (uint8_t thread = 1; thread <= kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      const Bytes data(kLength, std::byte{thread});
      Bytes found(kLength);
      for (int i = 0; i < 100; ++i) {
        device().Write(kPlace, data);
        device().Read(kPlace, found);
        if (std::ranges::any_of(found, is_of_nobody)) ++wrong;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(wrong, 0);
  device().Read(kPlace, std::span(model()).subspan(kPlace, kLength));
  CheckAll();
}

}  // namespace
}  // namespace pellucid
