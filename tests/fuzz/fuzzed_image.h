#ifndef PELLUCID_TESTS_FUZZ_FUZZED_IMAGE_H_
#define PELLUCID_TESTS_FUZZ_FUZZED_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/qcow2/qcow2_image.h"
#include "engine/qcow2/snapshots.h"
#include "tests/fuzz/sparse_device.h"

namespace pellucid {

// How much of a disk the targets look at, from its start.
inline constexpr uint64_t kSeenBytes = 128 << 10;

// Opens the qcow2 image in `file` (borrowed), with a known key if it is
// encrypted and with a small backing or data file if it names one. Throws as
// Qcow2Image() does.
std::unique_ptr<qcow2::Qcow2Image> OpenToRead(
    SparseDevice& file, const std::optional<qcow2::Snapshot>& snapshot = {});
std::unique_ptr<qcow2::Qcow2Image> OpenToWrite(SparseDevice& file);

// Walks some extents, and reads where they are and at the end. Throws as Read()
// does.
void ReadAround(BlockDevice& device);

// The first kSeenBytes, in pieces; nothing for a piece that throws an Error.
std::vector<std::optional<std::vector<std::byte>>> SeenContent(
    BlockDevice& device);

}  // namespace pellucid

#endif  // PELLUCID_TESTS_FUZZ_FUZZED_IMAGE_H_
