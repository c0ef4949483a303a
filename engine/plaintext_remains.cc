#include "engine/plaintext_remains.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <memory>
#include <string_view>
#include <utility>

#include "engine/errors.h"
#include "engine/image_layers.h"
#include "engine/luks/located_header.h"
#include "engine/luks/luks1_header.h"
#include "engine/luks/luks2_header.h"
#include "engine/noise_probe.h"

namespace pellucid {
namespace {

using Place = PlaintextRemains::Place;

// What ciphers write at once, at least.
constexpr size_t kSector = 512;
// Zeros that do not end a range.
constexpr uint64_t kMaxGap = 64 << 10;
constexpr size_t kMaxSignatures = 4;
// More than are shown, since they come in any order.
constexpr size_t kMaxRuns = 4096;
// As much as is read at once, by a report of the plaintext as well.
constexpr uint64_t kPiece = 1 << 20;

bool IsPlain(ByteKind kind) {
  return kind == ByteKind::kText || kind == ByteKind::kMixed;
}

// Of a sector or a part of one. As opposed to ByteKindOf(), noise is believed
// to be something else only beyond all doubt: a disk has billions of sectors.
ByteKind KindOfSector(std::span<const std::byte> sector) {
  const ByteKind kind = ByteKindOf(sector);
  return kind == ByteKind::kMixed && !CannotBeNoise(sector) ? ByteKind::kRandom
                                                            : kind;
}

void AddSignature(std::vector<PlaintextRemains::Signature>& signatures,
                  const PlaintextRemains::Signature& signature) {
  const bool is_known = std::ranges::any_of(signatures, [&](const auto& known) {
    return known.volume.type == signature.volume.type &&
           known.volume.uuid == signature.volume.uuid;
  });
  if (!is_known && signatures.size() < kMaxSignatures) {
    signatures.push_back(signature);
  }
}

// A part of the volume to be looked through.
struct Region {
  uint64_t begin = 0;
  uint64_t end = 0;
  Place place = Place::kPayload;
};

// Where things are in the content that the volume lies in.
class Layout {
 public:
  Layout(BlockDevice& content, const luks::VolumeHeader& header)
      : size_(content.size()) {
    ExcludeHeader(content);
    for (const luks::Segment& segment : header.segments) {
      const uint64_t end = segment.offset + segment.bytes(size_);
      first_ = std::min(first_, segment.offset);
      if (segment.encryption) {
        payload_.push_back({segment.offset, end, Place::kPayload});
      }
      Exclude(segment.offset, end);
    }
  }

  const std::vector<Region>& payload() const { return payload_; }
  uint64_t payload_bytes() const {
    uint64_t bytes = 0;
    for (const Region& region : payload_) bytes += region.end - region.begin;
    return bytes;
  }

  // All that is neither payload nor a field of the header.
  std::vector<Region> Rest() {
    std::ranges::sort(excluded_);
    std::vector<Region> rest;
    uint64_t at = 0;
    const auto add_up_to = [&](uint64_t end) {
      if (at >= end) return;
      rest.push_back({at, end, at < first_ ? Place::kInFront : Place::kBehind});
    };
    for (const auto& [begin, end] : excluded_) {
      add_up_to(begin);
      at = std::max(at, end);
    }
    add_up_to(size_);
    return rest;
  }

 private:
  void Exclude(uint64_t begin, uint64_t end) {
    excluded_.emplace_back(std::min(begin, size_), std::min(end, size_));
  }

  // The fields of a header in place, also if another one is in use.
  void ExcludeHeader(BlockDevice& content) {
    if (!luks::IsLuksVolume(content)) return;
    std::array<std::byte, luks::kLuks1HeaderBytes> start = {};
    ReadZeroPadded(content, 0, start);
    if (luks::LuksVersion(start) == 1) {
      Exclude(0, luks::kLuks1HeaderBytes);
      return;
    }
    try {
      const uint64_t hdr_size =
          luks::ReadLuks2Copies(content, 0, size_, "").newest.hdr_size;
      ExcludeLuks2Copy(content, 0, hdr_size);
      ExcludeLuks2Copy(content, hdr_size, hdr_size);
    } catch (const CorruptImage&) {
      // One that nobody needs, since there is a header elsewhere.
    }
  }

  void ExcludeLuks2Copy(BlockDevice& content, uint64_t offset,
                        uint64_t hdr_size) {
    std::vector<std::byte> bytes(hdr_size);
    ReadZeroPadded(content, offset, bytes);
    const auto has = [&](std::string_view magic) {
      return std::ranges::equal(std::span(bytes).first(magic.size()),
                                std::as_bytes(std::span(magic)));
    };
    // In place of a damaged copy there may be anything.
    if (!has("LUKS\xba\xbe") && !has("SKUL\xba\xbe")) return;
    constexpr uint64_t kBinaryHeader = 512;
    Exclude(offset, offset + kBinaryHeader);
    const auto json = bytes.begin() + luks::kLuks2BinaryBytes;
    const auto json_end = std::find(json, bytes.end(), std::byte{0});
    Exclude(offset + luks::kLuks2BinaryBytes,
            offset + static_cast<uint64_t>(json_end - bytes.begin()));
  }

  const uint64_t size_;
  uint64_t first_ = UINT64_MAX;  // Where the first segment begins.
  std::vector<Region> payload_;
  std::vector<std::pair<uint64_t, uint64_t>> excluded_;
};

// Equal plaintext gives equal ciphertext, within a sector or from one to the
// next.
bool ShowsPatterns(const luks::Encryption& encryption) {
  const std::string& mode = encryption.mode;
  return mode.starts_with("ecb") || mode.starts_with("ctr") ||
         mode.ends_with("-null") || encryption.cipher == "cipher_null";
}

void LookThrough(BlockDevice& content, const Region& region,
                 RemainsCollector& collector,
                 const std::function<void(uint64_t)>& advance) {
  std::vector<std::byte> buffer(kPiece);
  for (uint64_t at = region.begin; at < region.end;) {
    const uint64_t rest = region.end - at;
    const Extent extent = content.ExtentAt(at, rest);
    uint64_t length = std::min(kPiece, rest);
    if (extent.is_hole && extent.length >= length) {
      // Whole pieces, so that it makes no difference what is a hole.
      length =
          extent.length == rest ? rest : extent.length - extent.length % kPiece;
      collector.NoteZeros(length);
    } else {
      const auto bytes = std::span(buffer).first(static_cast<size_t>(length));
      content.Read(at, bytes);
      collector.Note(at, bytes, region.place);
    }
    at += length;
    advance(length);
  }
}

bool NeedsKey(const ImageLayer& layer) {
  return layer.qcow2 && layer.qcow2->crypt_method != qcow2::CryptMethod::kNone;
}

// Is what the layer shows all in its own file, or the data file that was
// opened?
bool StandsAlone(const ImageLayer& layer) {
  if (!layer.qcow2) return true;
  return layer.qcow2->backing_file.empty() &&
         (!layer.qcow2->has(qcow2::kExternalDataFile) || layer.data_file);
}

// The content that the volume lies in, its header, and what holds that.
struct Volume {
  std::unique_ptr<BlockDevice> content;
  std::unique_ptr<BlockDevice> header_content;  // Null if it is the same.
  luks::VolumeHeader header;
};

std::optional<Volume> OpenVolume(const OpenOptions& options) {
  if (options.encryption == Encryption::kNone) return std::nullopt;
  OpenOptions reading = options;
  reading.writable = false;
  auto layers = OpenLayers(options.image, options.format, options.snapshot,
                           reading, IfNamedFileFails::kNote);
  if (NeedsKey(*layers) || !StandsAlone(*layers)) return std::nullopt;
  Volume volume;
  volume.content = AssembleLayers(std::move(layers)).device;
  const bool detached = !options.header.empty();
  if (detached) {
    auto holder = OpenLayers(options.header, options.header_format, "", reading,
                             IfNamedFileFails::kNote);
    if (NeedsKey(*holder) || !StandsAlone(*holder)) return std::nullopt;
    volume.header_content = AssembleLayers(std::move(holder)).device;
  } else if (!luks::IsLuksVolume(*volume.content)) {
    return std::nullopt;
  }
  BlockDevice& device = detached ? *volume.header_content : *volume.content;
  const luks::LocatedHeader located = luks::ReadLuksHeader(
      device, 0, device.size(),
      detached ? options.header.native() : options.image.native(),
      detached ? luks::Place::kDetached : luks::Place::kInPlace);
  luks::CheckPayload(located, volume.content->size(), options.image.native());
  volume.header = located.header;
  return volume;
}

}  // namespace

void RemainsCollector::Note(uint64_t offset, std::span<const std::byte> bytes,
                            Place place) {
  uint64_t zeros = 0;
  uint64_t plain = 0;
  Runs runs;
  uint64_t zeros_since_run = 0;  // UINT64_MAX if there was noise.
  const auto note_sector = [&](uint64_t at, std::span<const std::byte> sector,
                               ByteKind kind) {
    if (kind == ByteKind::kZeros) {
      zeros += sector.size();
      if (zeros_since_run != UINT64_MAX) zeros_since_run += sector.size();
      return;
    }
    if (!IsPlain(kind)) {
      zeros_since_run = UINT64_MAX;
      return;
    }
    plain += sector.size();
    Run& run = runs.empty() || zeros_since_run >= kMaxGap
                   ? runs.emplace(at, Run{.place = place}).first->second
                   : std::prev(runs.end())->second;
    run.end = at + sector.size();
    run.bytes[static_cast<size_t>(kind)] += sector.size();
    zeros_since_run = 0;
  };
  for (size_t done = 0; done < bytes.size();) {
    const uint64_t begin = offset + done;
    const auto block = bytes.subspan(
        done,
        std::min(static_cast<size_t>(kByteKindBlock - begin % kByteKindBlock),
                 bytes.size() - done));
    done += block.size();
    if (LooksLikeNoise(block)) {
      note_sector(begin, block, ByteKind::kRandom);
      continue;
    }
    const uint64_t plain_before = plain;
    for (size_t in_block = 0; in_block < block.size();) {
      const uint64_t at = begin + in_block;
      const auto sector = block.subspan(
          in_block, std::min(static_cast<size_t>(kSector - at % kSector),
                             block.size() - in_block));
      note_sector(at, sector, KindOfSector(sector));
      in_block += sector.size();
    }
    if (plain == plain_before) continue;
    // A volume may begin in any sector.
    for (size_t in_block = 0; in_block < block.size(); in_block += kSector) {
      std::array<std::byte, kSignatureBlock> view = {};
      const auto there = bytes.subspan(done - block.size() + in_block);
      std::copy_n(there.begin(), std::min(there.size(), view.size()),
                  view.begin());
      for (const VolumeSignature& volume : FindSignaturesInBlock(view)) {
        AddSignature(std::prev(runs.end())->second.signatures,
                     {.offset = begin + in_block, .volume = volume});
      }
    }
  }
  const std::scoped_lock lock(mutex_);
  found_.examined_bytes += bytes.size();
  found_.zero_bytes += zeros;
  found_.plain_bytes += plain;
  for (auto& [begin, run] : runs) Insert(begin, std::move(run));
}

void RemainsCollector::NoteZeros(uint64_t length) {
  const std::scoped_lock lock(mutex_);
  found_.examined_bytes += length;
  found_.zero_bytes += length;
}

uint64_t RemainsCollector::examined_bytes() const {
  const std::scoped_lock lock(mutex_);
  return found_.examined_bytes;
}

void RemainsCollector::Append(Run& run, const Run& next) {
  run.end = next.end;
  for (size_t kind = 0; kind < kByteKinds; ++kind) {
    run.bytes[kind] += next.bytes[kind];
  }
  for (const auto& signature : next.signatures) {
    AddSignature(run.signatures, signature);
  }
}

void RemainsCollector::Insert(uint64_t begin, Run run) {
  const auto next = runs_.find(run.end);
  if (next != runs_.end() && next->second.place == run.place) {
    Append(run, next->second);
    runs_.erase(next);
  }
  const auto behind = runs_.lower_bound(begin);
  if (behind != runs_.begin()) {
    Run& before = std::prev(behind)->second;
    if (before.end == begin && before.place == run.place) {
      Append(before, run);
      return;
    }
  }
  runs_.emplace(begin, std::move(run));
  if (runs_.size() > kMaxRuns) {
    runs_.erase(std::prev(runs_.end()));
    found_.has_more_ranges = true;
  }
}

PlaintextRemains RemainsCollector::Take() {
  for (const auto& [begin, run] : runs_) {
    if (found_.ranges.size() == kMaxRanges) {
      found_.has_more_ranges = true;
      break;
    }
    const bool is_text = run.bytes[static_cast<size_t>(ByteKind::kText)] >
                         run.bytes[static_cast<size_t>(ByteKind::kMixed)];
    found_.ranges.push_back(
        {.offset = begin,
         .length = run.end - begin,
         .place = run.place,
         .kind = is_text ? ByteKind::kText : ByteKind::kMixed,
         .signatures = run.signatures});
  }
  runs_.clear();
  return std::exchange(found_, {});
}

std::optional<PlaintextRemains> FindPlaintextRemains(const OpenOptions& options,
                                                     RemainsCollector& seen,
                                                     const WorkWatch& watch) {
  CheckOptions(options);
  const std::optional<Volume> volume = OpenVolume(options);
  if (!volume) return std::nullopt;
  for (const luks::Segment& segment : volume->header.segments) {
    if (segment.encryption && ShowsPatterns(*segment.encryption)) {
      return std::nullopt;
    }
  }
  BlockDevice& content = *volume->content;
  Layout layout(content, volume->header);
  std::vector<Region> regions = layout.Rest();
  if (seen.examined_bytes() != layout.payload_bytes()) {
    seen.Take();
    regions.insert(regions.end(), layout.payload().begin(),
                   layout.payload().end());
  }
  uint64_t total = 0;
  for (const Region& region : regions) total += region.end - region.begin;
  uint64_t done = 0;
  for (const Region& region : regions) {
    LookThrough(content, region, seen, [&](uint64_t length) {
      done += length;
      if (watch) watch(done, total);
    });
  }
  return seen.Take();
}

}  // namespace pellucid
