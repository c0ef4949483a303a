#include "engine/luks/luks_device.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <mutex>
#include <utility>

#include "engine/sector_pieces.h"
#include "engine/transfer_buffer.h"

namespace pellucid::luks {
namespace {

// As much as is encrypted and written at once. No sector lies in two regions.
constexpr uint64_t kRegionBytes = TransferBuffer::kSize;

}  // namespace

LuksDevice::LuksDevice(std::unique_ptr<BlockDevice> payload,
                       const VolumeHeader& header,
                       std::span<const std::byte> volume_key)
    : payload_(std::move(payload)) {
  AddRuns(header, volume_key);
}

LuksDevice::LuksDevice(std::unique_ptr<WritableDevice> payload,
                       const VolumeHeader& header,
                       std::span<const std::byte> volume_key)
    : writable_payload_(payload.get()),
      payload_(std::move(payload)),
      region_locks_(std::make_unique<std::array<RegionLock, kRegionLocks>>()) {
  AddRuns(header, volume_key);
}

void LuksDevice::AddRuns(const VolumeHeader& header,
                         std::span<const std::byte> volume_key) {
  for (const Segment& segment : header.segments) {
    AddRun(segment, segment.encryption ? crypto::MakeSectorCipher(
                                             segment.encryption->Spec(),
                                             volume_key, segment.sector_size())
                                       : nullptr);
  }
}

void LuksDevice::AddRun(const Segment& segment, Cipher cipher) {
  Run run = {};
  run.encryption = segment.encryption;
  run.cipher = std::move(cipher);
  run.begin = size_;
  size_ += segment.bytes(payload_->size());
  run.end = size_;
  run.payload_offset = segment.offset;
  run.iv_tweak = segment.iv_tweak;
  runs_.push_back(std::move(run));
}

std::unique_ptr<LuksDevice> LuksDevice::WithOtherPayload(
    std::unique_ptr<BlockDevice> payload, const VolumeHeader& header) const {
  std::unique_ptr<LuksDevice> device(new LuksDevice(std::move(payload)));
  for (const Segment& segment : header.segments) {
    const auto alike =
        std::ranges::find(runs_, segment.encryption, &Run::encryption);
    if (segment.encryption && alike == runs_.end()) return nullptr;
    device->AddRun(segment, segment.encryption ? alike->cipher : nullptr);
  }
  return device;
}

const LuksDevice::Run& LuksDevice::RunAt(uint64_t offset) const {
  return *std::ranges::find_if(
      runs_, [&](const Run& run) { return offset < run.end; });
}

uint64_t LuksDevice::LengthInRegion(const Run& run, uint64_t offset,
                                    uint64_t length) {
  length = std::min(length, run.end - offset);
  if (!run.cipher) return length;
  return std::min(length, kRegionBytes - (offset - run.begin) % kRegionBytes);
}

std::shared_mutex& LuksDevice::RegionMutex(uint64_t in_run) {
  return (*region_locks_)[in_run / kRegionBytes % kRegionLocks].mutex;
}

void LuksDevice::Read(uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const Run& run = RunAt(offset);
    // Nobody writes a payload that is open for reading: it can be read at once.
    const size_t length =
        writable_payload_ != nullptr
            ? LengthInRegion(run, offset, out.size())
            : std::min<uint64_t>(out.size(), run.end - offset);
    ReadRun(run, offset, out.first(length));
    offset += length;
    out = out.subspan(length);
  }
}

void LuksDevice::ReadRun(const Run& run, uint64_t offset,
                         std::span<std::byte> out) {
  const uint64_t in_run = offset - run.begin;
  if (!run.cipher) return payload_->Read(run.payload_offset + in_run, out);
  ReadInSectors(in_run, out, run.cipher->sector_size(),
                [&](uint64_t at, std::span<std::byte> sectors) {
                  std::shared_lock<std::shared_mutex> lock;
                  if (writable_payload_ != nullptr) {
                    lock = std::shared_lock(RegionMutex(at));
                  }
                  payload_->Read(run.payload_offset + at, sectors);
                  if (lock) lock.unlock();
                  if (ciphertext_watch_) {
                    ciphertext_watch_(run.payload_offset + at, sectors);
                  }
                  Decrypt(run, at, sectors);
                });
}

void LuksDevice::Decrypt(const Run& run, uint64_t in_run,
                         std::span<std::byte> sectors) {
  // Counted in 512-byte units whatever the sector size is.
  run.cipher->Decrypt(run.iv_tweak + in_run / kSectorSize, sectors, sectors);
}

Extent LuksDevice::ExtentAt(uint64_t offset, uint64_t max_length) {
  const Run& run = RunAt(offset);
  const uint64_t length = std::min(max_length, run.end - offset);
  if (run.cipher) return {.length = length, .is_hole = false};
  return payload_->ExtentAt(run.payload_offset + (offset - run.begin), length);
}

void LuksDevice::Write(uint64_t offset, std::span<const std::byte> in) {
  assert(writable_payload_ != nullptr);
  while (!in.empty()) {
    const Run& run = RunAt(offset);
    const size_t length = LengthInRegion(run, offset, in.size());
    const uint64_t in_run = offset - run.begin;
    if (run.cipher) {
      WriteInRegion(run, in_run, in.data(), length);
    } else {
      writable_payload_->Write(run.payload_offset + in_run, in.first(length));
    }
    offset += length;
    in = in.subspan(length);
  }
}

void LuksDevice::WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) {
  assert(writable_payload_ != nullptr);
  while (length != 0) {
    const Run& run = RunAt(offset);
    const uint64_t piece = LengthInRegion(run, offset, length);
    const uint64_t in_run = offset - run.begin;
    if (run.cipher) {
      WriteInRegion(run, in_run, nullptr, piece);
    } else {
      writable_payload_->WriteZeroes(run.payload_offset + in_run, piece, mode);
    }
    offset += piece;
    length -= piece;
  }
}

void LuksDevice::WriteInRegion(const Run& run, uint64_t in_run,
                               const std::byte* in, size_t length) {
  const size_t sector_size = run.cipher->sector_size();
  const size_t head = in_run % sector_size;
  const size_t tail =
      (sector_size - (head + length) % sector_size) % sector_size;
  const uint64_t begin = in_run - head;
  TransferBuffer buffer;
  const std::span sectors = buffer.bytes().first(head + length + tail);
  std::unique_lock lock(RegionMutex(in_run), std::defer_lock);
  const auto read_cut_sector = [&](size_t at) {
    const std::span sector = sectors.subspan(at, sector_size);
    payload_->Read(run.payload_offset + begin + at, sector);
    Decrypt(run, begin + at, sector);
  };
  std::span<const std::byte> plaintext = sectors;
  if (head != 0 || tail != 0) {
    // What is beside our bytes has to be the same when it is written.
    lock.lock();
    if (head != 0) read_cut_sector(0);
    const size_t last = sectors.size() - sector_size;
    if (tail != 0 && (last != 0 || head == 0)) read_cut_sector(last);
    if (in != nullptr) std::memcpy(sectors.data() + head, in, length);
  } else if (in != nullptr) {
    plaintext = {in, length};
  }
  if (in == nullptr) std::memset(sectors.data() + head, 0, length);
  run.cipher->Encrypt(run.iv_tweak + begin / kSectorSize, plaintext, sectors);
  if (!lock) lock.lock();
  writable_payload_->Write(run.payload_offset + begin, sectors);
}

void LuksDevice::Flush() {
  assert(writable_payload_ != nullptr);
  writable_payload_->Flush();
}

}  // namespace pellucid::luks
