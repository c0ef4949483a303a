#include "engine/noise_probe.h"

#include <algorithm>
#include <array>

namespace pellucid {
namespace {

constexpr size_t kBlock = 4096;
constexpr size_t kSector = 512;

// A single block of random data may be anything, such as a key file.
constexpr size_t kFewestBlocks = 4;

constexpr uint64_t kHeadBytes = uint64_t{1} << 20;
constexpr uint64_t kTailBytes = uint64_t{64} << 10;
constexpr uint64_t kPlacesBetween = 32;

// Is every sector of the block written, that is not zeros?
bool IsWritten(std::span<const std::byte> block) {
  for (size_t at = 0; at < block.size(); at += kSector) {
    if (std::ranges::all_of(block.subspan(at, kSector),
                            [](std::byte b) { return b == std::byte{0}; })) {
      return false;
    }
  }
  return true;
}

// Offsets of the blocks to look at.
std::vector<uint64_t> PlacesIn(uint64_t length) {
  const uint64_t end = length / kBlock * kBlock;
  const uint64_t head = std::min(kHeadBytes, end);
  const uint64_t tail = std::max(head, end - std::min(kTailBytes, end));
  std::vector<uint64_t> places;
  for (uint64_t at = 0; at < head; at += kBlock) places.push_back(at);
  const uint64_t step = (tail - head) / kPlacesBetween / kBlock * kBlock;
  for (uint64_t at = head + step; step != 0 && at < tail; at += step) {
    places.push_back(at);
  }
  for (uint64_t at = tail; at < end; at += kBlock) places.push_back(at);
  return places;
}

// Pearson's chi-square against equal counts: of noise it is 255 on average,
// with a standard deviation of 22.6.
double ChiSquare(std::span<const std::byte> bytes) {
  std::array<uint32_t, 256> counts = {};
  for (const std::byte byte : bytes) ++counts[std::to_integer<size_t>(byte)];
  const double expected = static_cast<double>(bytes.size()) / 256;
  double chi_square = 0;
  for (const uint32_t count : counts) {
    const double difference = count - expected;
    chi_square += difference * difference / expected;
  }
  return chi_square;
}

}  // namespace

bool LooksLikeNoise(std::span<const std::byte> bytes) {
  constexpr double kGreatest = 400;
  return ChiSquare(bytes) < kGreatest;
}

bool CannotBeNoise(std::span<const std::byte> bytes) {
  constexpr double kGreatest = 600;
  return ChiSquare(bytes) >= kGreatest;
}

NoiseProbe::NoiseProbe(BlockDevice& payload, uint64_t offset, uint64_t length) {
  std::array<std::byte, kBlock> block;
  for (const uint64_t place : PlacesIn(length)) {
    if (payload.ExtentAt(offset + place, kBlock).is_hole) continue;
    payload.Read(offset + place, block);
    if (IsWritten(block)) written_.push_back(place);
  }
}

bool NoiseProbe::IsNoise(BlockDevice& plaintext) const {
  std::array<std::byte, kBlock> block;
  for (const uint64_t place : written_) {
    plaintext.Read(place, block);
    if (!LooksLikeNoise(block)) return false;
  }
  return written_.size() >= kFewestBlocks;
}

}  // namespace pellucid
