#include "tools/file_listing.h"

#include <fmt/core.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <utility>

#include "engine/device_window.h"
#include "engine/new_file.h"
#include "engine/partition_table.h"

namespace pellucid::cli {
namespace {

using Json = nlohmann::ordered_json;

// Gathers lines, since there may be millions.
class LineFile {
 public:
  explicit LineFile(WritableDevice& device) : device_(device) {}

  void Add(std::string_view line) {
    gathered_ += line;
    if (gathered_.size() >= kPiece) Write();
  }

  void Write() {
    device_.Write(offset_, std::as_bytes(std::span(gathered_)));
    offset_ += gathered_.size();
    gathered_.clear();
  }

 private:
  static constexpr size_t kPiece = size_t{1} << 20;

  WritableDevice& device_;
  uint64_t offset_ = 0;
  std::string gathered_;
};

// What is listed of its own.
struct Volume {
  std::optional<unsigned> partition;  // None: the whole disk.
  uint64_t offset = 0;
  uint64_t size = 0;

  std::string Prefix() const {
    return partition ? fmt::format("/p{}/", *partition) : "/";
  }
  std::string Name() const {
    return partition ? fmt::format("partition {}", *partition)
                     : "the whole disk";
  }
};

std::vector<Volume> VolumesOf(BlockDevice& disk) {
  const auto table = ReadPartitionTable(disk);
  if (!table) return {{.partition = {}, .offset = 0, .size = disk.size()}};
  std::vector<Volume> volumes;
  for (const Partition& partition : table->partitions) {
    volumes.push_back({.partition = partition.number,
                       .offset = partition.offset,
                       .size = partition.size});
  }
  return volumes;
}

// That of whoever examines the disk has nothing to do with it.
std::string TimeZone() {
  // No other thread changes the environment.
  const char* zone = std::getenv("TZ");  // NOLINT(concurrency-mt-unsafe)
  return zone != nullptr && *zone != '\0' ? zone : "UTC";
}

}  // namespace

FileListing::FileListing(const std::filesystem::path& file, bool overwrite)
    : file_(file),
      overwrite_(overwrite),
      time_zone_(TimeZone()),
      lister_(FileLister::ProgramOfThisBuild(), time_zone_, {}) {}

Json FileListing::WriteFor(BlockDevice& disk) {
  NewFile file(file_, overwrite_);
  LineFile lines(file.device());
  uint64_t entries = 0;
  uint64_t deleted = 0;
  Json systems = Json::array();
  for (const Volume& volume : VolumesOf(disk)) {
    WindowReader window(disk, volume.offset, volume.size);
    const FileLister::Result result =
        lister_.List(window, volume.Prefix(),
                     [&](std::string_view line) { lines.Add(line); });
    entries += result.entries;
    deleted += result.deleted;
    const bool is_complete = result.error.empty();
    if (!is_complete) {
      gaps_.push_back({fmt::format("{}: not all files of {} are listed: {}",
                                   file_.native(), volume.Name(), result.error),
                       result.exit_code});
    }
    systems.push_back(
        {{"partition",
          volume.partition ? Json(*volume.partition) : Json(nullptr)},
         {"offset", volume.offset},
         {"type", result.type.empty() ? Json(nullptr) : Json(result.type)},
         {"prefix", volume.Prefix()},
         {"entries", result.entries},
         {"deleted", result.deleted},
         {"complete", is_complete},
         {"error", is_complete ? Json(nullptr) : Json(result.error)}});
  }
  lines.Write();
  file.Keep();
  return {{"file", std::filesystem::absolute(file_).native()},
          {"libtsk_version", lister_.libtsk_version()},
          {"time_zone", time_zone_},
          {"entries", entries},
          {"deleted", deleted},
          {"complete", gaps_.empty()},
          {"file_systems", std::move(systems)}};
}

}  // namespace pellucid::cli
