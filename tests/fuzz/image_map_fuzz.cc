// What `pellucid info`, `map` and a read-only mount find in an image with a
// backing chain and an external data file, each of them a file. What the map
// says of the disk must be what can be read there.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <span>
#include <vector>

#include "engine/image_map.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/fuzzed_image.h"
#include "tests/fuzz/host_files.h"
#include "tests/fuzz/sparse_device.h"

using namespace pellucid;

namespace {

constexpr uint64_t kPiece = 4096;
constexpr int kExtents = 60;

// What is stored at `offset`, with zeros behind the end.
std::vector<std::byte> Stored(const std::filesystem::path& path,
                              uint64_t offset, size_t length) {
  std::vector<std::byte> bytes(length);
  const int file = open(path.c_str(), O_RDONLY | O_NOATIME | O_CLOEXEC);
  Require(file >= 0, "the map names a file that cannot be opened");
  (void)!pread(file, bytes.data(), length, static_cast<off_t>(offset));
  close(file);
  return bytes;
}

void CompareExtent(const ImageMap& map, const MapExtent& extent,
                   BlockDevice& disk) {
  std::vector<std::byte> found(std::min(extent.length, kPiece));
  if (!Attempt([&] { disk.Read(extent.start, found); })) return;
  if (extent.kind == MapKind::kUnallocated || extent.kind == MapKind::kZero) {
    Require(
        std::ranges::all_of(found, [](auto b) { return b == std::byte{0}; }),
        "the map says zeros where there are none");
  } else if (extent.kind == MapKind::kData && extent.host_offset) {
    Require(found == Stored(map.file(extent.depth), *extent.host_offset,
                            found.size()),
            "what the disk has is not where the map says");
  }
}

// Walks the map; `disk` is null if it could not be opened.
void Walk(ImageMap& map, BlockDevice* disk) {
  uint64_t at = 0;
  int compared = 0;
  const bool complete = Attempt([&] {
    map.ForEachExtent([&](const MapExtent& extent) {
      Require(extent.start == at, "a gap in the map");
      Require(extent.length > 0 && extent.length <= map.size() - at,
              "an extent of the map that is empty or too long");
      at += extent.length;
      map.file(extent.depth);
      if (disk != nullptr && compared++ < kExtents) {
        CompareExtent(map, extent, *disk);
      }
    });
  });
  Require(!complete || at == map.size(), "a map that ends too early");
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static HostFiles files;
  files.Put({data, size});
  const uint16_t choices = SparseDevice::ForTarget({data, size});
  OpenOptions options = files.Options();
  if ((choices & 1) != 0) options.format = ContainerFormat::kQcow2;
  if ((choices & 2) != 0) options.snapshot = "1";
  // As it is stored, which is what the map shows.
  options.encryption = Encryption::kNone;
  Attempt([&] { DescribeImage(options); });
  std::optional<OpenedImage> opened;
  NoPassphrases none;
  Attempt([&] {
    opened = OpenImage(options, none);
    files.RequireNoOthers(*opened);
  });
  Attempt([&] {
    ImageMap map(options);
    Require(!opened || map.size() == opened->device->size(),
            "a map of another size than the disk");
    Walk(map, opened ? opened->device.get() : nullptr);
  });
  if (opened) {
    Attempt([&] { ReadAround(*opened->device); });
    if (opened->snapshots && opened->snapshots->count() > 0) {
      Attempt([&] { ReadAround(*opened->snapshots->Open(0)); });
    }
  }
  opened.reset();
  // Opens whatever needs no passphrase.
  options.encryption = Encryption::kAuto;
  Attempt([&] { ReadAround(*OpenImage(options, none).device); });
  files.RequireUntouched();
  return 0;
}
