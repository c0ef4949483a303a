#include "tests/fuzz/sparse_device.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "engine/errors.h"

namespace pellucid {

uint16_t SparseDevice::ForTarget(std::span<const uint8_t> input) {
  uint16_t bits = 0;
  if (input.size() >= 8) std::memcpy(&bits, input.data() + 6, sizeof bits);
  return bits;
}

SparseDevice::SparseDevice(std::span<const uint8_t> input) {
  if (input.size() < sizeof size_) return;
  std::memcpy(&size_, input.data(), sizeof size_);
  size_ %= kMaxBytes;
  input = input.subspan(sizeof size_);
  while (input.size() > sizeof(uint32_t)) {
    uint32_t number = 0;
    std::memcpy(&number, input.data(), sizeof number);
    input = input.subspan(sizeof number);
    const size_t length = std::min(input.size(), kSector);
    if (uint64_t{number} * kSector < size_) {
      Sector& sector = sectors_[number];
      std::memcpy(sector.data(), input.data(), length);
    }
    input = input.subspan(length);
  }
  // Resize() may show again what is behind the end.
  if (size_ % kSector != 0) {
    const auto last = sectors_.find(size_ / kSector);
    if (last != sectors_.end()) {
      std::fill(last->second.begin() + static_cast<ptrdiff_t>(size_ % kSector),
                last->second.end(), std::byte{0});
    }
  }
}

std::unique_ptr<SparseDevice> SparseDevice::Copy() const {
  std::unique_ptr<SparseDevice> copy(new SparseDevice);
  copy->size_ = size_;
  copy->sectors_ = sectors_;
  return copy;
}

void SparseDevice::CheckInside(uint64_t offset, uint64_t length) const {
  if (offset > size_ || length > size_ - offset) {
    throw std::logic_error("access behind the end of the device");
  }
}

void SparseDevice::Read(uint64_t offset, std::span<std::byte> out) {
  CheckInside(offset, out.size());
  std::ranges::fill(out, std::byte{0});
  const uint64_t end = offset + out.size();
  for (auto at = sectors_.lower_bound(offset / kSector);
       at != sectors_.end() && at->first * kSector < end; ++at) {
    const uint64_t begin = at->first * kSector;
    const uint64_t from = std::max(begin, offset);
    const uint64_t to = std::min(begin + kSector, end);
    std::memcpy(out.data() + (from - offset),
                at->second.data() + (from - begin), to - from);
  }
}

Extent SparseDevice::ExtentAt(uint64_t offset, uint64_t max_length) {
  CheckInside(offset, 1);
  if (max_length == 0) throw std::logic_error("an extent of nothing");
  const uint64_t rest = std::min(max_length, size_ - offset);
  const auto next = sectors_.lower_bound(offset / kSector);
  if (next == sectors_.end()) return {.length = rest, .is_hole = true};
  const uint64_t begin = next->first * kSector;
  if (begin > offset) {
    return {.length = std::min(rest, begin - offset), .is_hole = true};
  }
  return {.length = std::min(rest, begin + kSector - offset), .is_hole = false};
}

SparseDevice::Sector& SparseDevice::SectorToWrite(uint64_t number) {
  const auto found = sectors_.find(number);
  if (found != sectors_.end()) return found->second;
  if (sectors_.size() >= kMaxStored / kSector) {
    throw IoError(ENOSPC, "image: no space left in the fuzzer's memory");
  }
  return sectors_[number];
}

void SparseDevice::Write(uint64_t offset, std::span<const std::byte> in) {
  if (offset > kMaxBytes || in.size() > kMaxBytes - offset) {
    throw IoError(EFBIG, "image: the file would become too large");
  }
  size_ = std::max(size_, offset + in.size());
  while (!in.empty()) {
    const size_t at = offset % kSector;
    const size_t length = std::min(in.size(), kSector - at);
    std::memcpy(SectorToWrite(offset / kSector).data() + at, in.data(), length);
    in = in.subspan(length);
    offset += length;
  }
}

void SparseDevice::WriteZeroes(uint64_t offset, uint64_t length, ZeroMode) {
  if (offset > kMaxBytes || length > kMaxBytes - offset) {
    throw IoError(EFBIG, "image: the file would become too large");
  }
  const uint64_t end = offset + length;
  size_ = std::max(size_, end);
  for (auto at = sectors_.lower_bound(offset / kSector);
       at != sectors_.end() && at->first * kSector < end;) {
    const uint64_t begin = at->first * kSector;
    if (begin >= offset && begin + kSector <= end) {
      at = sectors_.erase(at);
      continue;
    }
    const uint64_t from = std::max(begin, offset) - begin;
    const uint64_t to = std::min(begin + kSector, end) - begin;
    std::fill(at->second.begin() + static_cast<ptrdiff_t>(from),
              at->second.begin() + static_cast<ptrdiff_t>(to), std::byte{0});
    ++at;
  }
}

void SparseDevice::Resize(uint64_t size) {
  if (size > kMaxBytes) {
    throw IoError(EFBIG, "image: the file would become too large");
  }
  if (size < size_) WriteZeroes(size, size_ - size, ZeroMode::kFreeSpace);
  size_ = size;
}

}  // namespace pellucid
