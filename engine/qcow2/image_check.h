#ifndef PELLUCID_ENGINE_QCOW2_IMAGE_CHECK_H_
#define PELLUCID_ENGINE_QCOW2_IMAGE_CHECK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/findings.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/reference_scan.h"
#include "engine/work_watch.h"

namespace pellucid::qcow2 {

// What `qemu-img check` says of an image, and more.
struct ImageCheck {
  uint64_t leaks = 0;        // As QEMU counts them.
  uint64_t corruptions = 0;  // As QEMU counts them.
  uint64_t leaks_behind_end = 0;
  uint64_t unreadable = 0;
  uint64_t hazards = 0;  // ReferenceScan::hazards.

  uint64_t total_clusters = 0;     // Of the virtual disk.
  ReferenceScan::Mapping mapping;  // Of the active state.
  uint64_t image_end = 0;          // Where the last cluster in use ends.

  Findings findings;  // All of these, and warnings.

  bool is_sound() const {
    return corruptions == 0 && unreadable == 0 && hazards == 0;
  }
  // Of all findings but leaks and warnings.
  std::vector<std::string> texts() const;
};

// Compares refcounts and copied flags with everything that refers to clusters.
// Changes nothing. `watch` is told of bytes of tables. Throws CorruptImage if
// the snapshot table cannot be read, Unsupported and IoError.
ImageCheck CheckImage(BlockDevice& file, const std::string& file_name,
                      const Header& header, const WorkWatch& watch = {});

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_IMAGE_CHECK_H_
