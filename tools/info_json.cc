#include "tools/info_json.h"

#include <nlohmann/json.hpp>

#include "tools/utc_date.h"

namespace pellucid::cli {
namespace {

using Json = nlohmann::ordered_json;

Json TextOrNull(const std::string& text) {
  return text.empty() ? Json(nullptr) : Json(text);
}

Json KeyslotToJson(const KeyslotInfo& keyslot) {
  Json json = {{"index", keyslot.index},
               {"kdf", keyslot.kdf},
               {"priority", keyslot.priority},
               {"stripes", keyslot.stripes},
               {"key_material_offset", keyslot.key_material_offset}};
  if (keyslot.iterations != 0) {
    json["iterations"] = keyslot.iterations;
  } else {
    json["time"] = keyslot.time;
    json["memory_kib"] = keyslot.memory_kib;
    json["cpus"] = keyslot.cpus;
  }
  return json;
}

Json LuksToJson(const std::optional<LuksInfo>& luks) {
  if (!luks) return nullptr;
  Json keyslots = Json::array();
  for (const KeyslotInfo& keyslot : luks->keyslots) {
    keyslots.push_back(KeyslotToJson(keyslot));
  }
  Json tokens = Json::array();
  for (const TokenInfo& token : luks->tokens) {
    tokens.push_back({{"index", token.index},
                      {"type", token.type},
                      {"keyslots", token.keyslots}});
  }
  return {{"version", luks->version},
          {"place", luks->place},
          {"header_file", luks->header_file.string()},
          {"header_offset", luks->header_offset},
          {"uuid", luks->uuid},
          {"label", TextOrNull(luks->label)},
          {"cipher", luks->cipher},
          {"mode", luks->mode},
          {"hash", luks->hash},
          {"key_bits", luks->key_bits},
          {"sector_size", luks->sector_size},
          {"payload_offset", luks->payload_offset},
          {"keyslots", std::move(keyslots)},
          {"tokens", std::move(tokens)},
          {"warnings", luks->warnings}};
}

Json SnapshotToJson(const SnapshotInfo& snapshot) {
  return {
      {"id", snapshot.id},
      {"name", snapshot.name},
      {"date", FormatUtcDate(snapshot.date_seconds, snapshot.date_nanoseconds)},
      {"virtual_size", snapshot.virtual_size},
      {"vm_state_size", snapshot.vm_state_size},
      {"vm_clock_nanoseconds", snapshot.vm_clock_nanoseconds}};
}

Json SnapshotsToJson(const std::vector<SnapshotInfo>& snapshots) {
  Json array = Json::array();
  for (const SnapshotInfo& snapshot : snapshots) {
    array.push_back(SnapshotToJson(snapshot));
  }
  return array;
}

Json Qcow2ToJson(const std::optional<Qcow2Info>& qcow2) {
  if (!qcow2) return nullptr;
  return {{"version", qcow2->version},
          {"cluster_size", qcow2->cluster_size},
          {"refcount_bits", qcow2->refcount_bits},
          {"extended_l2", qcow2->extended_l2},
          {"lazy_refcounts", qcow2->lazy_refcounts},
          {"dirty", qcow2->dirty},
          {"corrupt", qcow2->corrupt},
          {"compression", qcow2->compression},
          {"encryption", qcow2->encryption},
          {"luks", LuksToJson(qcow2->luks)},
          {"backing_file", TextOrNull(qcow2->backing_file)},
          {"backing_format", TextOrNull(qcow2->backing_format)},
          {"data_file", TextOrNull(qcow2->data_file)},
          {"data_file_raw", qcow2->data_file_raw},
          {"data_file_path", TextOrNull(qcow2->data_file_path.string())},
          {"bitmaps", qcow2->bitmaps},
          {"total_clusters", qcow2->total_clusters},
          {"allocated_clusters", qcow2->allocated_clusters},
          {"compressed_clusters", qcow2->compressed_clusters},
          {"snapshots", SnapshotsToJson(qcow2->snapshots)}};
}

Json PartitionToJson(const std::optional<Partition>& partition) {
  if (!partition) return nullptr;
  return {{"number", partition->number},
          {"offset", partition->offset},
          {"size", partition->size},
          {"label", TextOrNull(partition->label)}};
}

Json ImageToJson(const ImageInfo& info) {
  return {{"file", info.file.string()},
          {"format", info.format},
          {"virtual_size", info.virtual_size},
          {"file_size", info.file_size},
          {"disk_size", info.disk_size},
          {"qcow2", Qcow2ToJson(info.qcow2)},
          {"partition", PartitionToJson(info.partition)},
          {"luks_partitions", info.luks_partitions},
          {"luks", LuksToJson(info.luks)},
          {"backing", info.backing ? ImageToJson(*info.backing) : nullptr},
          {"backing_error", TextOrNull(info.backing_error)},
          {"warnings", info.warnings}};
}

std::string Dump(const Json& json) {
  constexpr bool kAsciiOnly = true;
  return json.dump(2, ' ', kAsciiOnly, Json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string FormatInfoAsJson(const ImageInfo& info) {
  return Dump(ImageToJson(info));
}

std::string FormatLuksAsJson(const LuksInfo& luks) {
  return Dump(LuksToJson(luks));
}

std::string FormatSnapshotsAsJson(const std::vector<SnapshotInfo>& snapshots) {
  return Dump(SnapshotsToJson(snapshots));
}

}  // namespace pellucid::cli
