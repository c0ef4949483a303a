// Reads over a whole qcow2 image: L1 and L2 tables, compressed and encrypted
// clusters, snapshots, and a LUKS volume above all of it or of the raw bytes.

#include <utility>
#include <vector>

#include "engine/borrowed_device.h"
#include "engine/luks/located_header.h"
#include "engine/luks/luks_device.h"
#include "engine/qcow2/shared_clusters.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/fuzzed_image.h"

using namespace pellucid;

namespace {

constexpr size_t kSnapshots = 3;

// A volume of two segments whose key is known.
luks::LocatedHeader Volume() {
  luks::LocatedHeader located;
  located.file_name = "header";
  located.header.version = 2;
  luks::Segment linear;
  linear.offset = 512;
  linear.size = 8192;
  luks::Segment encrypted;
  encrypted.id = 1;
  encrypted.offset = 16384;
  encrypted.encryption = {
      .cipher = "aes", .mode = "xts-plain64", .sector_size = 4096};
  located.header.segments = {linear, encrypted};
  return located;
}

void ReadVolumeOver(std::unique_ptr<BlockDevice> payload) {
  static const luks::LocatedHeader volume = Volume();
  static const std::vector<std::byte> key(32, std::byte{0x77});
  luks::CheckPayload(volume, payload->size(), "payload");
  luks::LuksDevice device(std::move(payload), volume.header, key);
  ReadAround(device);
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  SparseDevice file({data, size});
  Attempt([&] { ReadVolumeOver(std::make_unique<BorrowedDevice>(file)); });
  std::unique_ptr<qcow2::Qcow2Image> image;
  if (!Attempt([&] { image = OpenToRead(file); })) return 0;
  Attempt([&] { ReadAround(*image); });
  SeenContent(*image);
  Attempt([&] { ReadVolumeOver(std::move(image)); });
  const qcow2::Header header = qcow2::ReadHeader(file, "disk.qcow2");
  const auto snapshots = qcow2::ReadSnapshots(file, "disk.qcow2", header);
  for (size_t i = 0; i < std::min(snapshots.size(), kSnapshots); ++i) {
    Attempt([&] { ReadAround(*OpenToRead(file, snapshots[i])); });
  }
  Attempt([&] {
    qcow2::SharedClusters shared(file, header, snapshots, nullptr);
    shared.HasData({1 << 16});
  });
  return 0;
}
