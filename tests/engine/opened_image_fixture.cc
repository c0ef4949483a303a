#include "tests/engine/opened_image_fixture.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <span>

namespace pellucid {
namespace {

bool IsZero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes,
                             [](std::byte b) { return b == std::byte{}; });
}

// Which kinds of bytes a sector holds.
enum SectorKind : uint8_t { kHasData = 1, kHasHole = 2 };
constexpr uint64_t kSector = 512;

// Asks for extents that begin and end anywhere, which may differ from the
// walk's pieces but not in kind.
void CheckRandomExtents(BlockDevice& device,
                        const std::vector<uint8_t>& kinds) {
  std::mt19937_64 random(device.size());
  for (int i = 0; i < 50; ++i) {
    const uint64_t offset = random() % device.size();
    const uint64_t limit = 1 + random() % (device.size() - offset);
    const Extent extent = device.ExtentAt(offset, limit);
    ASSERT_GT(extent.length, 0U);
    ASSERT_LE(extent.length, limit);
    const uint8_t kind = extent.is_hole ? kHasHole : kHasData;
    const uint64_t last = offset + extent.length - 1;
    ASSERT_TRUE(kinds[offset / kSector] & kind)
        << "at " << offset << " (" << limit << " bytes)";
    ASSERT_TRUE(kinds[last / kSector] & kind) << "at " << last;
  }
}

}  // namespace

std::optional<crypto::SecretBytes> KnownPassphrases::Get(std::string_view layer,
                                                         unsigned attempt) {
  const std::vector<std::string>* passphrases = &for_all_;
  const std::string file_name = std::filesystem::path(layer).filename();
  const auto own = by_file_.find(file_name);
  if (own != by_file_.end()) passphrases = &own->second;
  if (attempt >= passphrases->size()) return std::nullopt;
  ++given_;
  return crypto::SecretBytes(std::as_bytes(std::span((*passphrases)[attempt])));
}

std::unique_ptr<BlockDevice> OpenDevice(const OpenOptions& options,
                                        const std::string& passphrase) {
  KnownPassphrases passphrases(passphrase.empty()
                                   ? std::vector<std::string>{}
                                   : std::vector<std::string>{passphrase});
  return OpenImage(options, passphrases).device;
}

Bytes ReadAll(BlockDevice& device, size_t piece) {
  Bytes content(device.size());
  for (uint64_t at = 0; at < content.size(); at += piece) {
    device.Read(at, std::span(content).subspan(
                        at, std::min<uint64_t>(piece, content.size() - at)));
  }
  return content;
}

uint64_t CheckExtents(BlockDevice& device, const Bytes& content) {
  EXPECT_EQ(device.size(), content.size());
  if (device.size() == 0 || ::testing::Test::HasFailure()) return 0;
  std::vector<uint8_t> kinds(device.size() / kSector + 1);
  uint64_t holes = 0;
  uint64_t at = 0;
  while (at < device.size()) {
    const Extent extent = device.ExtentAt(at, device.size() - at);
    EXPECT_GT(extent.length, 0U) << "at " << at;
    EXPECT_LE(extent.length, device.size() - at) << "at " << at;
    if (::testing::Test::HasFailure()) return holes;
    if (extent.is_hole) {
      holes += extent.length;
      EXPECT_TRUE(IsZero(std::span(content).subspan(at, extent.length)))
          << "a hole at " << at << " of " << extent.length
          << " bytes is not all zeros";
    }
    for (uint64_t i = at / kSector; i <= (at + extent.length - 1) / kSector;
         ++i) {
      kinds[i] |= extent.is_hole ? kHasHole : kHasData;
    }
    at += extent.length;
  }
  CheckRandomExtents(device, kinds);
  return holes;
}

void CheckRandomReads(BlockDevice& device, const Bytes& content, int count,
                      uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes buffer;
  for (int i = 0; i < count && !content.empty(); ++i) {
    const uint64_t offset = random() % content.size();
    // Mostly short, to hit many edges, now and then across several clusters.
    const uint64_t most = uint64_t{1} << random() % 19;
    buffer.resize(std::min(1 + random() % most, content.size() - offset));
    device.Read(offset, buffer);
    const auto expected = std::span(content).subspan(offset, buffer.size());
    ASSERT_TRUE(std::ranges::equal(buffer, expected))
        << buffer.size() << " bytes at " << offset << " differ";
  }
}

std::string FirstDifference(const Bytes& found, const Bytes& expected) {
  if (found.size() != expected.size()) {
    return fmt::format("{} bytes, not {}", found.size(), expected.size());
  }
  const auto [a, b] = std::ranges::mismatch(found, expected);
  if (a == found.end()) return "";
  return fmt::format("byte {} is {:#04x}, not {:#04x}", a - found.begin(),
                     std::to_integer<unsigned>(*a),
                     std::to_integer<unsigned>(*b));
}

}  // namespace pellucid
