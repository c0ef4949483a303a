#include "engine/qcow2/resize.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/header_fields.h"
#include "engine/qcow2/snapshot_changes.h"
#include "engine/qcow2/table_switch.h"

namespace pellucid::qcow2 {
namespace {

uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

void CheckSnapshotsKeepTheirSize(const TableSwitch& image) {
  if (std::ranges::all_of(image.records(), TellsItsSize)) return;
  throw Unsupported(fmt::format(
      "{}: has snapshots that do not tell their own size, as in version 2 of "
      "qcow2: changing the disk's would change theirs; delete them, or make a "
      "new image with `qemu-img convert`",
      image.file_name()));
}

// What the tables need to hold a larger disk, with the disk as it is.
void GrowTables(const GrowParts& parts, uint64_t size) {
  TableSwitch image(parts.file, parts.file_name);
  CheckSnapshotsKeepTheirSize(image);
  NextTables next = image.Present();
  next.l1_size = std::max(next.l1_size, image.L1EntriesFor(size));
  next.header.autoclear_features &= ~kBitmapsConsistent;
  if (next.l1_size == image.header().l1_size && !image.header().has(kDirty) &&
      next.header.autoclear_features == image.header().autoclear_features) {
    return;
  }
  image.SwitchTo(std::move(next));
}

void GrowDataFile(ResizableDevice& data_file, uint64_t old_size,
                  uint64_t size) {
  if (data_file.size() > old_size) {
    data_file.WriteZeroes(old_size, data_file.size() - old_size,
                          ZeroMode::kFreeSpace);
  }
  if (data_file.size() < size) data_file.Resize(size);
  data_file.Flush();
}

}  // namespace

void GrowDisk(const GrowParts& parts, uint64_t size) {
  GrowTables(parts, size);
  Header header = ReadHeader(parts.file, parts.file_name);
  const uint64_t old_size = header.size;
  if (parts.data_file != nullptr) {
    GrowDataFile(*parts.data_file, old_size, size);
  }
  // Behind the end nobody sees what is there: it can be put right before it is
  // shown.
  header.size = size;
  const uint64_t zero_from = parts.can_write_data
                                 ? old_size
                                 : RoundUp(old_size, header.cluster_size());
  if (zero_from < size) {
    const std::unique_ptr<WritableDevice> disk = parts.open(header);
    disk->WriteZeroes(zero_from, size - zero_from, ZeroMode::kFreeSpace);
    disk->Flush();
  }
  std::array<std::byte, 8> field;
  StoreBigEndian(field, 0, size);
  parts.file.Write(kSize.byte, field);
  parts.file.Flush();
}

void ShrinkDisk(ResizableDevice& file, ResizableDevice* data_file,
                const std::string& file_name, uint64_t size) {
  {
    TableSwitch image(file, file_name);
    CheckSnapshotsKeepTheirSize(image);
    NextTables next = image.Present();
    next.header.size = size;
    next.header.l1_size = image.L1EntriesFor(size);
    next.l1_size = std::max(next.header.l1_size, uint32_t{1});
    next.header.autoclear_features &= ~kBitmapsConsistent;
    next.guest_end = RoundUp(size, next.header.cluster_size());
    image.SwitchTo(std::move(next));
  }
  // No earlier: until now the old size had to be there.
  if (data_file != nullptr && data_file->size() > size) {
    data_file->Resize(size);
    data_file->Flush();
  }
}

}  // namespace pellucid::qcow2
