// A write session over an image, then a change of its snapshots or its size. An
// image in which nothing was wrong must hold what was written, and nothing may
// be wrong with it afterwards.

#include <optional>
#include <random>

#include "engine/qcow2/image_check.h"
#include "engine/qcow2/resize.h"
#include "engine/qcow2/snapshot_changes.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/fuzzed_image.h"
#include "tests/fuzz/write_session.h"

using namespace pellucid;

namespace {

bool IsSound(SparseDevice& file, bool leaks_are_wrong) {
  bool sound = false;
  Attempt([&] {
    const qcow2::Header header = qcow2::ReadHeader(file, "disk.qcow2");
    const qcow2::ImageCheck check =
        qcow2::CheckImage(file, "disk.qcow2", header);
    sound = check.is_sound() &&
            (!leaks_are_wrong || check.leaks + check.leaks_behind_end == 0);
  });
  return sound;
}

void ChangeTables(SparseDevice& file, uint64_t kind, uint64_t size) {
  const std::string name = "disk.qcow2";
  switch (kind) {
    case 0:
      qcow2::CreateSnapshot(file, name, {.name = "fuzz"});
      return;
    case 1:
      qcow2::DeleteSnapshot(file, name, "1");
      return;
    case 2:
      qcow2::ApplySnapshot(file, name, "1");
      return;
    default:
      qcow2::ShrinkDisk(file, nullptr, name, size / 1024 * 512);
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  SparseDevice file({data, size});
  std::mt19937_64 random(SparseDevice::ForTarget({data, size}));
  const bool was_sound = IsSound(file, true);
  std::unique_ptr<qcow2::Qcow2Image> disk;
  if (!Attempt([&] { disk = OpenToWrite(file); })) return 0;
  const bool has_data_file =
      qcow2::ReadHeader(file, "disk.qcow2").has(qcow2::kExternalDataFile);
  const bool has_bitmaps =
      qcow2::ReadHeader(file, "disk.qcow2").nb_bitmaps != 0;
  DiskModel model(*disk);
  const bool all_done = ChangeDisk(*disk, model, random);
  const bool flushed = Attempt([&] { disk->Flush(); });
  if (was_sound && all_done && flushed) {
    model.Compare(*disk);
    disk.reset();
    // Bitmaps that are no longer right stay counted.
    Require(IsSound(file, !has_bitmaps), "writing has damaged the image");
    if (!has_data_file) model.Compare(*OpenToRead(file));
  }
  disk.reset();
  Attempt([&] {
    ChangeTables(file, random() % 4,
                 qcow2::ReadHeader(file, "disk.qcow2").size);
  });
  if (was_sound && all_done && flushed) {
    Require(IsSound(file, !has_bitmaps),
            "a change of snapshots or size has damaged the image");
  }
  return 0;
}
