#include "engine/qcow2/snapshots.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/big_endian.h"
#include "engine/errors.h"

namespace pellucid::qcow2 {
namespace {

constexpr uint64_t kFixedBytes = 40;
constexpr uint32_t kMaxExtraData = 1024;
constexpr uint64_t kMaxTableBytes = 64 << 20;

// Reads one entry after the other; every length is checked before it is used.
class TableReader {
 public:
  TableReader(BlockDevice& file, const std::string& file_name,
              const Header& header)
      : file_(file),
        file_name_(file_name),
        header_(header),
        at_(header.snapshots_offset) {}

  Snapshot Next() {
    entry_ = at_;
    std::array<std::byte, kFixedBytes> fixed;
    Read(fixed);
    Snapshot snapshot;
    snapshot.entry_offset = entry_;
    snapshot.l1_table_offset = LoadBigEndian<uint64_t>(fixed, 0);
    snapshot.l1_size = LoadBigEndian<uint32_t>(fixed, 8);
    const auto id_size = LoadBigEndian<uint16_t>(fixed, 12);
    const auto name_size = LoadBigEndian<uint16_t>(fixed, 14);
    snapshot.info.date_seconds = LoadBigEndian<uint32_t>(fixed, 16);
    snapshot.info.date_nanoseconds = LoadBigEndian<uint32_t>(fixed, 20);
    snapshot.info.vm_clock_nanoseconds = LoadBigEndian<uint64_t>(fixed, 24);
    snapshot.info.vm_state_size = LoadBigEndian<uint32_t>(fixed, 32);
    snapshot.info.virtual_size = header_.size;
    ParseExtraData(LoadBigEndian<uint32_t>(fixed, 36), snapshot.info);
    snapshot.info.id = ReadText(id_size);
    snapshot.info.name = ReadText(name_size);
    at_ = (at_ + 7) / 8 * 8;
    return snapshot;
  }

 private:
  void Read(std::span<std::byte> out) {
    if (at_ > file_.size() || out.size() > file_.size() - at_) {
      throw CorruptImage(fmt::format(
          "{}: snapshot table entry at offset {} ends behind the {}-byte file",
          file_name_, entry_, file_.size()));
    }
    if (at_ + out.size() - header_.snapshots_offset > kMaxTableBytes) {
      throw CorruptImage(fmt::format(
          "{}: the snapshot table (header field snapshots_offset, byte 64) is "
          "longer than {} MiB",
          file_name_, kMaxTableBytes >> 20));
    }
    file_.Read(at_, out);
    at_ += out.size();
  }

  // Byte 0: 64-bit size of the VM state; byte 8: virtual disk size.
  void ParseExtraData(uint32_t size, SnapshotInfo& info) {
    if (size > kMaxExtraData) {
      throw CorruptImage(
          fmt::format("{}: snapshot table entry at offset {}: extra data size "
                      "(byte {}) is {}, above {}",
                      file_name_, entry_, entry_ + 36, size, kMaxExtraData));
    }
    std::array<std::byte, kMaxExtraData> buffer;
    const std::span extra = std::span(buffer).first(size);
    Read(extra);
    if (size >= 8) info.vm_state_size = LoadBigEndian<uint64_t>(extra, 0);
    if (size >= 16) info.virtual_size = LoadBigEndian<uint64_t>(extra, 8);
  }

  std::string ReadText(uint16_t size) {
    std::string text(size, '\0');
    Read(std::as_writable_bytes(std::span(text)));
    return text;
  }

  BlockDevice& file_;
  const std::string& file_name_;
  const Header& header_;
  uint64_t at_;
  uint64_t entry_ = 0;
};

}  // namespace

std::vector<Snapshot> ReadSnapshots(BlockDevice& file,
                                    const std::string& file_name,
                                    const Header& header) {
  std::vector<Snapshot> snapshots;
  TableReader reader(file, file_name, header);
  for (uint32_t i = 0; i < header.nb_snapshots; ++i) {
    snapshots.push_back(reader.Next());
  }
  return snapshots;
}

const Snapshot& FindSnapshot(const std::vector<Snapshot>& snapshots,
                             const std::string& id_or_name,
                             const std::string& file_name) {
  for (const auto field : {&SnapshotInfo::id, &SnapshotInfo::name}) {
    const auto found = std::find_if(
        snapshots.begin(), snapshots.end(),
        [&](const Snapshot& s) { return s.info.*field == id_or_name; });
    if (found != snapshots.end()) return *found;
  }
  constexpr size_t kMaxListed = 20;
  std::string list;
  for (size_t i = 0; i < std::min(snapshots.size(), kMaxListed); ++i) {
    list += fmt::format("{}{} \"{}\"", i == 0 ? "" : ", ", snapshots[i].info.id,
                        snapshots[i].info.name);
  }
  if (snapshots.size() > kMaxListed) list += ", ...";
  throw UsageError(
      snapshots.empty()
          ? fmt::format("{}: there is no snapshot \"{}\": the image has none",
                        file_name, id_or_name)
          : fmt::format("{}: there is no snapshot \"{}\"; the image has {}",
                        file_name, id_or_name, list));
}

}  // namespace pellucid::qcow2
