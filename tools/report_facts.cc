#include "tools/report_facts.h"

#include <fmt/core.h>
#include <sys/sysmacros.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "engine/device_window.h"
#include "engine/errors.h"
#include "engine/file_device.h"
#include "engine/partition_table.h"
#include "engine/stale_clusters.h"
#include "engine/volume_signature.h"
#include "tools/block_map.h"
#include "tools/byte_kind_map.h"
#include "tools/manifest_format.h"
#include "tools/map_svg.h"
#include "tools/ordered_hashes.h"
#include "tools/plaintext_copy.h"
#include "tools/progress_bar.h"
#include "tools/utc_date.h"

namespace pellucid::cli {
namespace {

using Json = nlohmann::ordered_json;

Json TextOrNull(const std::string& text) {
  return text.empty() ? Json(nullptr) : Json(text);
}

Json OffsetOrNull(const std::optional<uint64_t>& offset) {
  return offset ? Json(*offset) : Json(nullptr);
}

std::string FormatTime(const timespec& time) {
  return FormatUtcDate(time.tv_sec, static_cast<uint32_t>(time.tv_nsec));
}

Json PictureToJson(const CellPicture& picture) {
  Json kinds = Json::array();
  for (const CellPicture::Kind& kind : picture.kinds) {
    kinds.push_back(
        {{"name", kind.name}, {"bytes", kind.bytes}, {"colour", kind.colour}});
  }
  std::string cells;
  std::string fill;
  for (const CellPicture::Cell& cell : picture.cells) {
    cells += static_cast<char>('0' + cell.kind);
    fill += static_cast<char>('0' + cell.fill);
  }
  return {{"size", picture.size},
          {"kinds", std::move(kinds)},
          {"columns", picture.columns},
          {"cell_bytes", picture.cell_bytes},
          {"cells", cells},
          {"fill", fill}};
}

Json SignatureToJson(const VolumeSignature& signature) {
  return {{"type", signature.type},
          {"label", TextOrNull(signature.label)},
          {"uuid", TextOrNull(signature.uuid)}};
}

Json SignaturesToJson(BlockDevice& volume) {
  Json array = Json::array();
  for (const VolumeSignature& signature : FindVolumeSignatures(volume)) {
    array.push_back(SignatureToJson(signature));
  }
  return array;
}

Json RemainsToJson(const PlaintextRemains& remains) {
  Json ranges = Json::array();
  for (const PlaintextRemains::Range& range : remains.ranges) {
    using Place = PlaintextRemains::Place;
    Json contents = Json::array();
    for (const PlaintextRemains::Signature& signature : range.signatures) {
      Json json = {{"offset", signature.offset}};
      json.update(SignatureToJson(signature.volume));
      contents.push_back(std::move(json));
    }
    ranges.push_back(
        {{"offset", range.offset},
         {"length", range.length},
         {"place", range.place == Place::kInFront  ? "in front of the payload"
                   : range.place == Place::kBehind ? "behind the payload"
                                                   : "payload"},
         {"kind", range.kind == ByteKind::kText ? "text-like" : "mixed"},
         {"contents", std::move(contents)}});
  }
  return {{"examined_bytes", remains.examined_bytes},
          {"zero_bytes", remains.zero_bytes},
          {"not_encrypted_bytes", remains.plain_bytes},
          {"ranges", std::move(ranges)},
          {"has_more_ranges", remains.has_more_ranges}};
}

// Reads all of `source` into `target`; hashes are null unless they are wanted.
Json CopyAndHash(BlockDevice& source, CopyTarget& target,
                 const ReportDepth& depth) {
  std::optional<OrderedHashes> hashes;
  if (!depth.hash_names.empty()) hashes.emplace(depth.hash_names);
  ProgressBar bar(source.size(), depth.quiet);
  PlaintextCopy copy(source, {.offset = 0, .length = source.size()}, target, 0,
                     {.hashes = hashes ? &*hashes : nullptr});
  copy.Run(depth.threads, [&](Progress progress) { bar.Show(progress); });
  if (!hashes) return nullptr;
  Json json = Json::object();
  for (const Digest& digest : hashes->Finish()) {
    json[digest.algorithm] = FormatHex(digest.bytes);
  }
  return json;
}

bool EncryptsClusters(const ImageInfo& info) {
  return info.qcow2 && info.qcow2->encryption != "none";
}

bool IsEncrypted(const ImageInfo& info) {
  return EncryptsClusters(info) || info.luks;
}

// What matters of all this to somebody in a hurry.
Json FindingsOf(const std::optional<StaleClusters>& stale,
                const std::optional<PlaintextRemains>& remains,
                const ImageInfo& info, uint64_t compressed_plaintext) {
  const bool has_luks_clusters = info.qcow2 && info.qcow2->luks;
  const bool is_encrypted = IsEncrypted(info);
  Json findings = Json::array();
  const auto add = [&](std::string_view what, uint64_t count) {
    if (count != 0) findings.push_back(fmt::format("{}: {}", what, count));
  };
  add("compressed clusters that are plaintext in an encrypted image",
      compressed_plaintext);
  if (remains) {
    add("bytes of the LUKS volume that are not encrypted and that anybody can "
        "read in the file",
        remains->plain_bytes);
  }
  if (!stale) return findings;
  add(is_encrypted ? "clusters that nothing refers to, with data that is not "
                     "encrypted and that anybody can read in the file"
                   : "clusters that nothing refers to, with data",
      stale->plain);
  add(has_luks_clusters
          ? "clusters that nothing refers to, with ciphertext of earlier "
            "states, which `pellucid export --unallocated` decrypts"
      : is_encrypted
          ? "clusters that nothing refers to, with ciphertext of earlier states"
          : "clusters that nothing refers to, with data that looks random",
      stale->noise);
  if (stale->tables_are_damaged) {
    findings.push_back(
        "the tables are damaged: clusters in use may be among those that "
        "nothing refers to");
  }
  return findings;
}

}  // namespace

Json AllocationFacts(ImageMap& map) {
  BlockMap blocks(map.size(), kSvgColumns, kSvgRows);
  map.ForEachExtent([&](const MapExtent& extent) { blocks.Add(extent); });
  return PictureToJson(PictureOf(blocks));
}

Json DiskFacts(BlockDevice& disk) {
  Json json = {{"size", disk.size()},
               {"contents", SignaturesToJson(disk)},
               {"partitions", nullptr},
               {"warnings", Json::array()}};
  const auto table = ReadPartitionTable(disk);
  if (!table) return json;
  json["warnings"] = table->warnings;
  json["partitions"] = Json::array();
  for (const Partition& partition : table->partitions) {
    WindowReader volume(disk, partition.offset, partition.size);
    json["partitions"].push_back({{"number", partition.number},
                                  {"offset", partition.offset},
                                  {"size", partition.size},
                                  {"label", TextOrNull(partition.label)},
                                  {"scheme", partition.scheme},
                                  {"type", partition.type},
                                  {"contents", SignaturesToJson(volume)}});
  }
  return json;
}

Json SnapshotDiskFacts(OpenedImage& image) {
  Json array = Json::array();
  const size_t count = image.snapshots ? image.snapshots->count() : 0;
  for (size_t i = 0; i < count; ++i) {
    const SnapshotInfo& info = image.snapshots->info(i);
    Json json = {{"id", info.id},
                 {"name", info.name},
                 {"disk", nullptr},
                 {"error", nullptr}};
    try {
      json["disk"] = DiskFacts(*image.snapshots->Open(i));
    } catch (const Error& error) {
      // The other snapshots are still worth reporting.
      json["error"] = error.what();
    }
    array.push_back(std::move(json));
  }
  return array;
}

Json PlaintextFacts(BlockDevice& disk, const ReportDepth& depth) {
  ByteKindMap map(disk.size());
  Json hashes = CopyAndHash(disk, map, depth);
  return {{"hashes", std::move(hashes)},
          {"entropy", PictureToJson(map.Picture())}};
}

Json LeakFacts(const OpenOptions& options, const ImageInfo& info,
               const ReportDepth& depth, RemainsCollector& seen) {
  std::optional<StaleClusters> stale;
  std::optional<PlaintextRemains> remains;
  if (depth.read_everything) {
    std::optional<ProgressBar> bar;
    const WorkWatch watch = [&](uint64_t done, uint64_t total) {
      if (!bar) bar.emplace(total, depth.quiet);
      bar->Show({.position = done, .copied = done});
    };
    stale = FindStaleClusters(options, watch);
    bar.reset();
    remains = FindPlaintextRemains(options, seen, watch);
  }
  const bool encrypts_clusters = EncryptsClusters(info);
  const uint64_t compressed = !encrypts_clusters ? 0
                              : stale            ? stale->compressed_entries
                                      : info.qcow2->compressed_clusters;
  Json json = {{"findings", FindingsOf(stale, remains, info, compressed)},
               {"compressed_plaintext_clusters", compressed},
               {"unreferenced_clusters", nullptr},
               {"volume_remains", nullptr}};
  if (remains) json["volume_remains"] = RemainsToJson(*remains);
  if (stale) {
    json["unreferenced_clusters"] = {
        {"cluster_size", stale->cluster_size},
        {"with_data", stale->noise + stale->tables + stale->plain},
        {"random", stale->noise},
        {"old_tables", stale->tables},
        {"not_encrypted", stale->plain},
        {"first_random_offset", OffsetOrNull(stale->first_noise)},
        {"first_not_encrypted_offset", OffsetOrNull(stale->first_plain)},
        {"tables_are_damaged", stale->tables_are_damaged}};
  }
  return json;
}

Json FileFacts(const std::vector<EvidenceFiles::File>& files,
               const OpenOptions& options, const ReportDepth& depth) {
  Json array = Json::array();
  for (const EvidenceFiles::File& file : files) {
    Json hashes = nullptr;
    if (!depth.hash_names.empty()) {
      const auto device = FileDevice::Open(
          file.path, options.force_share ? FileDevice::Sharing::kForced
                                         : FileDevice::Sharing::kExclusive);
      NoTarget nowhere;
      hashes = CopyAndHash(*device, nowhere, depth);
    }
    const struct stat& status = file.status;
    struct stat now = {};
    const bool is_unchanged =
        stat(file.path.c_str(), &now) == 0 &&
        HostFileId::Of(now) == HostFileId::Of(status) &&
        now.st_size == status.st_size &&
        FormatTime(now.st_mtim) == FormatTime(status.st_mtim) &&
        FormatTime(now.st_ctim) == FormatTime(status.st_ctim) &&
        FormatTime(now.st_atim) == FormatTime(status.st_atim);
    array.push_back({{"file", file.path.native()},
                     {"size", file.size},
                     {"device", fmt::format("{}:{}", major(status.st_dev),
                                            minor(status.st_dev))},
                     {"inode", status.st_ino},
                     {"modified", FormatTime(status.st_mtim)},
                     {"changed", FormatTime(status.st_ctim)},
                     {"accessed", FormatTime(status.st_atim)},
                     {"unchanged_by_this_report", is_unchanged},
                     {"hashes", std::move(hashes)}});
  }
  return array;
}

}  // namespace pellucid::cli
