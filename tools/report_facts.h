#ifndef PELLUCID_TOOLS_REPORT_FACTS_H_
#define PELLUCID_TOOLS_REPORT_FACTS_H_

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "engine/image_map.h"
#include "engine/open_image.h"
#include "engine/plaintext_remains.h"
#include "tools/evidence_files.h"

namespace pellucid::cli {

// How much a report has to look at.
struct ReportDepth {
  bool unlock = true;           // Otherwise only what needs no key.
  bool read_everything = true;  // Otherwise no data, only what describes it.
  std::vector<std::string> hash_names;
  unsigned threads = 1;
  bool quiet = false;  // No progress bar.
};

// The parts of a report, as docs/report-json.md has them. All throw every kind
// of Error. Text in them may be any bytes.

nlohmann::ordered_json AllocationFacts(ImageMap& map);

// Partitions and file systems of the image and of its snapshots.
nlohmann::ordered_json DiskFacts(BlockDevice& disk);
nlohmann::ordered_json SnapshotDiskFacts(OpenedImage& image);

// Reads all of the plaintext, once, with several threads.
nlohmann::ordered_json PlaintextFacts(BlockDevice& disk,
                                      const ReportDepth& depth);

// What `seen` has noted while the plaintext was read is not read again.
nlohmann::ordered_json LeakFacts(const OpenOptions& options,
                                 const ImageInfo& info,
                                 const ReportDepth& depth,
                                 RemainsCollector& seen);

// Last of all, since it tells whether a file has changed meanwhile.
nlohmann::ordered_json FileFacts(const std::vector<EvidenceFiles::File>& files,
                                 const OpenOptions& options,
                                 const ReportDepth& depth);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_REPORT_FACTS_H_
