#include "engine/image_snapshots.h"

#include <fmt/format.h>
#include <time.h>

#include <array>

#include "engine/errors.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/snapshot_changes.h"
#include "engine/qcow2/snapshots.h"

namespace pellucid {
namespace {

qcow2::Header HeaderOf(BlockDevice& file, const std::string& file_name) {
  std::array<std::byte, 4> start{};
  ReadZeroPadded(file, 0, start);
  if (!qcow2::HasMagic(start)) {
    throw UsageError(fmt::format(
        "{}: is not a qcow2 image and has no snapshots", file_name));
  }
  return qcow2::ReadHeader(file, file_name);
}

}  // namespace

std::vector<SnapshotInfo> ListSnapshots(const std::filesystem::path& image,
                                        bool force_share) {
  const std::string& name = image.native();
  const LayerFile file = LayerFile::Open(
      image, force_share ? FileAccess::kReadShared : FileAccess::kRead);
  const qcow2::Header header = HeaderOf(file.device(), name);
  std::vector<SnapshotInfo> snapshots;
  for (const qcow2::Snapshot& snapshot :
       qcow2::ReadSnapshots(file.device(), name, header)) {
    snapshots.push_back(snapshot.info);
  }
  return snapshots;
}

ImageSnapshots::ImageSnapshots(const std::filesystem::path& image)
    : file_name_(image.native()),
      file_(LayerFile::Open(image, FileAccess::kWrite)) {
  if (HeaderOf(file_.device(), file_name_).has(qcow2::kCorrupt)) {
    throw CorruptImage(fmt::format(
        "{}: is marked as corrupt and therefore not changed; repair it with "
        "`pellucid check --repair all {}`",
        file_name_, file_name_));
  }
}

std::string ImageSnapshots::Create(const std::string& name) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return qcow2::CreateSnapshot(
      *file_.writable, file_name_,
      {.name = name,
       .date_seconds = static_cast<uint32_t>(now.tv_sec),
       .date_nanoseconds = static_cast<uint32_t>(now.tv_nsec)});
}

void ImageSnapshots::Delete(const std::string& id_or_name) {
  qcow2::DeleteSnapshot(*file_.writable, file_name_, id_or_name);
}

void ImageSnapshots::Apply(const std::string& id_or_name) {
  qcow2::ApplySnapshot(*file_.writable, file_name_, id_or_name);
}

}  // namespace pellucid
