// The qcow2 header, its extensions, snapshot table and bitmap directory.

#include <optional>

#include "engine/qcow2/bitmap_directory.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/header_encoding.h"
#include "engine/qcow2/snapshots.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/sparse_device.h"

using namespace pellucid;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  SparseDevice file({data, size});
  std::optional<qcow2::Header> header;
  if (!Attempt([&] { header = qcow2::ReadHeader(file, "disk"); })) return 0;
  Attempt([&] { qcow2::ReadBitmapDirectory(file, "disk", *header); });
  Attempt([&] { qcow2::ReadL1TableOf(file, "disk", *header, nullptr); });
  Attempt([&] {
    for (const auto& snapshot : qcow2::ReadSnapshots(file, "disk", *header)) {
      qcow2::ReadL1TableOf(file, "disk", *header, &snapshot);
    }
  });
  return 0;
}
