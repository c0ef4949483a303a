#include "engine/luks/luks_device.h"

#include <algorithm>
#include <utility>

#include "engine/sector_pieces.h"

namespace pellucid::luks {

LuksDevice::LuksDevice(std::unique_ptr<BlockDevice> payload,
                       const VolumeHeader& header,
                       std::span<const std::byte> volume_key)
    : payload_(std::move(payload)) {
  for (const Segment& segment : header.segments) {
    Run run = {};
    if (segment.encryption) {
      run.cipher = crypto::MakeSectorCipher(segment.encryption->Spec(),
                                            volume_key, segment.sector_size());
    }
    const uint64_t rest = payload_->size() - segment.offset;
    run.begin = size_;
    size_ += segment.size.value_or(rest - rest % segment.sector_size());
    run.end = size_;
    run.payload_offset = segment.offset;
    run.iv_tweak = segment.iv_tweak;
    runs_.push_back(std::move(run));
  }
}

const LuksDevice::Run& LuksDevice::RunAt(uint64_t offset) const {
  return *std::ranges::find_if(
      runs_, [&](const Run& run) { return offset < run.end; });
}

void LuksDevice::Read(uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const Run& run = RunAt(offset);
    const size_t length = std::min<uint64_t>(out.size(), run.end - offset);
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
                  payload_->Read(run.payload_offset + at, sectors);
                  // Counted in 512-byte units whatever the sector size is.
                  run.cipher->Decrypt(run.iv_tweak + at / kSectorSize, sectors,
                                      sectors);
                });
}

Extent LuksDevice::ExtentAt(uint64_t offset, uint64_t max_length) {
  const Run& run = RunAt(offset);
  const uint64_t length = std::min(max_length, run.end - offset);
  if (run.cipher) return {.length = length, .is_hole = false};
  return payload_->ExtentAt(run.payload_offset + (offset - run.begin), length);
}

}  // namespace pellucid::luks
