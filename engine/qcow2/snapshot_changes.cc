#include "engine/qcow2/snapshot_changes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/table_switch.h"

namespace pellucid::qcow2 {
namespace {

constexpr size_t kMaxSnapshots = 65536;
constexpr size_t kMaxTableBytes = 64 << 20;
constexpr size_t kMaxNameBytes = 255;  // What QEMU shows of one.
constexpr size_t kFixedBytes = 40;
constexpr uint32_t kExtraBytes = 24;

void CheckCanHaveSnapshots(const TableSwitch& image) {
  if (image.header().has(kExternalDataFile)) {
    throw Unsupported(fmt::format(
        "{}: has an external data file (\"{}\"), which holds one state only: "
        "such an image has no internal snapshots",
        image.file_name(), image.header().data_file));
  }
}

bool IsTaken(const std::vector<Snapshot>& snapshots, const std::string& word) {
  return std::ranges::any_of(snapshots, [&](const Snapshot& snapshot) {
    return snapshot.info.id == word || snapshot.info.name == word;
  });
}

void CheckName(const TableSwitch& image, const std::string& name) {
  const auto refuse = [&](const std::string& why) {
    throw UsageError(fmt::format("{}: {}", image.file_name(), why));
  };
  if (name.empty()) refuse("a snapshot needs a name");
  if (name.size() > kMaxNameBytes) {
    refuse(fmt::format("a snapshot's name has at most {} bytes, not {}",
                       kMaxNameBytes, name.size()));
  }
  if (IsTaken(image.snapshots(), name)) {
    refuse(
        fmt::format("there is a snapshot with the name or id \"{}\" already; "
                    "choose another name, or delete that one first",
                    name));
  }
}

// One above the greatest number, as QEMU does it, and not the name of another.
std::string NewId(const TableSwitch& image, const std::string& name) {
  uint64_t greatest = 0;
  for (const Snapshot& snapshot : image.snapshots()) {
    uint64_t number = 0;
    const std::string& id = snapshot.info.id;
    std::from_chars(id.data(), id.data() + id.size(), number);
    if (number < UINT64_MAX / 2) greatest = std::max(greatest, number);
  }
  for (uint64_t number = greatest + 1;; ++number) {
    std::string id = std::to_string(number);
    if (id != name && !IsTaken(image.snapshots(), id)) return id;
  }
}

// Without the place of the L1 table ("Snapshot table entry").
std::vector<std::byte> MakeRecord(const NewSnapshot& snapshot,
                                  const std::string& id, uint64_t size) {
  const size_t length =
      kFixedBytes + kExtraBytes + id.size() + snapshot.name.size();
  std::vector<std::byte> record((length + 7) / 8 * 8);
  const std::span bytes(record);
  StoreBigEndian(bytes, 12, static_cast<uint16_t>(id.size()));
  StoreBigEndian(bytes, 14, static_cast<uint16_t>(snapshot.name.size()));
  StoreBigEndian(bytes, 16, snapshot.date_seconds);
  StoreBigEndian(bytes, 20, snapshot.date_nanoseconds);
  StoreBigEndian(bytes, 36, kExtraBytes);
  StoreBigEndian(bytes, kFixedBytes + 8, size);
  // No count of instructions: nothing was being recorded.
  StoreBigEndian(bytes, kFixedBytes + 16, UINT64_MAX);
  const auto put = [&](size_t at, const std::string& text) {
    std::ranges::copy(std::as_bytes(std::span(text)),
                      bytes.subspan(at).begin());
  };
  put(kFixedBytes + kExtraBytes, id);
  put(kFixedBytes + kExtraBytes + id.size(), snapshot.name);
  return record;
}

size_t IndexOf(const TableSwitch& image, const std::string& id_or_name) {
  const Snapshot& found =
      FindSnapshot(image.snapshots(), id_or_name, image.file_name());
  return static_cast<size_t>(&found - image.snapshots().data());
}

void CheckTableSize(const NextTables& next, const std::string& file_name) {
  size_t bytes = 0;
  for (const auto& record : next.records) bytes += record.size();
  if (next.records.size() <= kMaxSnapshots && bytes <= kMaxTableBytes) return;
  throw Unsupported(fmt::format(
      "{}: has {} snapshots already; more than {}, or a table of "
      "them above {} MiB, are not supported",
      file_name, next.records.size() - 1, kMaxSnapshots, kMaxTableBytes >> 20));
}

}  // namespace

bool TellsItsSize(const std::vector<std::byte>& record) {
  return LoadBigEndian<uint32_t>(record, 36) >= 16;
}

std::string CreateSnapshot(ResizableDevice& file, const std::string& file_name,
                           const NewSnapshot& snapshot) {
  TableSwitch image(file, file_name);
  CheckCanHaveSnapshots(image);
  CheckName(image, snapshot.name);
  NextTables next = image.Present();
  const Header& header = next.header;
  std::string id = NewId(image, snapshot.name);
  next.records.push_back(MakeRecord(snapshot, id, header.size));
  CheckTableSize(next, file_name);
  // Without what is behind the disk's end: QEMU keeps the state of machines
  // there, and this is a snapshot of a disk.
  next.snapshots.push_back(
      {.info = {},
       .entry_offset =
           next.snapshots.empty() ? 0 : next.snapshots.back().entry_offset,
       .l1_table_offset = header.l1_table_offset,
       .l1_size = image.L1EntriesFor(header.size)});
  next.has_new_snapshot = true;
  image.SwitchTo(std::move(next));
  return id;
}

void DeleteSnapshot(ResizableDevice& file, const std::string& file_name,
                    const std::string& id_or_name) {
  TableSwitch image(file, file_name);
  CheckCanHaveSnapshots(image);
  const auto index = static_cast<ptrdiff_t>(IndexOf(image, id_or_name));
  NextTables next = image.Present();
  next.snapshots.erase(next.snapshots.begin() + index);
  next.records.erase(next.records.begin() + index);
  image.SwitchTo(std::move(next));
}

void ApplySnapshot(ResizableDevice& file, const std::string& file_name,
                   const std::string& id_or_name) {
  TableSwitch image(file, file_name);
  CheckCanHaveSnapshots(image);
  const Snapshot& snapshot = image.snapshots()[IndexOf(image, id_or_name)];
  const uint64_t size = snapshot.info.virtual_size;
  if (size != image.header().size &&
      !std::ranges::all_of(image.records(), TellsItsSize)) {
    throw Unsupported(fmt::format(
        "{}: snapshot {} has {} bytes and the disk {}, but not every snapshot "
        "tells its own size, as in version 2 of qcow2: changing the disk's "
        "would change theirs",
        file_name, snapshot.info.id, size, image.header().size));
  }
  NextTables next = image.Present();
  next.header.size = size;
  next.header.l1_table_offset = snapshot.l1_table_offset;
  // The state of a machine begins behind the entries of the disk.
  next.header.l1_size = image.L1EntriesFor(size);
  next.l1_size = next.header.l1_size;
  next.header.autoclear_features &= ~kBitmapsConsistent;
  if (snapshot.l1_size < next.header.l1_size) {
    throw CorruptImage(fmt::format(
        "{}: l1_size (byte {}) of snapshot {} is {} but its disk of {} bytes "
        "needs {} entries",
        file_name, snapshot.entry_offset + 8, snapshot.info.id,
        snapshot.l1_size, size, next.header.l1_size));
  }
  image.SwitchTo(std::move(next));
}

}  // namespace pellucid::qcow2
