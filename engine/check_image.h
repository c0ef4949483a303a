#ifndef PELLUCID_ENGINE_CHECK_IMAGE_H_
#define PELLUCID_ENGINE_CHECK_IMAGE_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "engine/findings.h"
#include "engine/open_image.h"
#include "engine/work_watch.h"

namespace pellucid {

enum class Repair {
  kNone,
  kLeaks,  // Give leaked clusters back, if nothing else is wrong.
  kAll,    // Whatever can be put right without touching the guest's bytes.
};

// What there is to say about a qcow2 container; names as in the JSON that
// `qemu-img check` prints.
struct ClusterStatistics {
  uint64_t image_end_offset = 0;  // Where the last cluster in use ends.
  uint64_t total_clusters = 0;    // Of the virtual disk.
  uint64_t allocated_clusters = 0;
  uint64_t fragmented_clusters = 0;
  uint64_t compressed_clusters = 0;
};

struct CheckReport {
  std::string format;                         // "qcow2" or "raw"
  std::optional<ClusterStatistics> clusters;  // Of qcow2.
  bool has_luks_header = false;  // One was looked for and looked at.

  // What is wrong; behind a repair, what still is.
  Findings findings;
  // What a repair has put right.
  uint64_t corruptions_fixed = 0;
  uint64_t leaks_fixed = 0;
  uint64_t hazards_fixed = 0;
  std::string not_repaired;  // Why something was left as it is, or empty.
};

// Checks the container, if it is qcow2, and the LUKS header, wherever that is:
// embedded, in a raw volume, among the guest data, or in options.header.
// Backing images are not checked. Asks for no passphrase.
//
// Without a repair no byte changes, nor a timestamp. A repair is cut off by
// nothing: a power cut leaves an image that can be repaired again
// (docs/crash-consistency.md). The image is locked while it is looked at, and
// for others while it is changed, but not in between.
//
// `watch` is told of bytes of qcow2 tables, from the start for each look at
// them; a repair itself is not watched.
//
// Memory: 4 bytes for each cluster in use (ReferenceScan), three times that for
// a repair; the findings are bounded.
//
// Throws every kind of Error but WrongPassphrase if the check cannot be
// completed, CorruptImage for a container whose header cannot be read.
CheckReport CheckImage(const OpenOptions& options, Repair repair,
                       const WorkWatch& watch = {});

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_CHECK_IMAGE_H_
