#ifndef PELLUCID_TOOLS_EVIDENCE_FILES_H_
#define PELLUCID_TOOLS_EVIDENCE_FILES_H_

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <vector>

#include "engine/host_file_rules.h"
#include "engine/open_image.h"

namespace pellucid::cli {

// The files of the host that are read as evidence while this lives: images,
// what they name, headers; no key files. Other rules for host files stay in
// force. Safe to call from many threads, but make and end it while there is no
// other.
class EvidenceFiles {
 public:
  struct File {
    std::filesystem::path path;  // Absolute.
    uint64_t size = 0;
    struct stat status = {};  // When it was opened first.
  };

  EvidenceFiles();
  EvidenceFiles(const EvidenceFiles&) = delete;
  EvidenceFiles& operator=(const EvidenceFiles&) = delete;
  ~EvidenceFiles();

  // Each file once, in the order in which they were opened.
  std::vector<File> files() const;

  // Throws UsageError if `path` is one of them.
  void CheckIsNone(const std::filesystem::path& path) const;

 private:
  void Note(const OpenedHostFile& opened);

  const HostFileRules before_;
  mutable std::mutex mutex_;
  std::vector<File> files_;  // Guarded by mutex_.
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_EVIDENCE_FILES_H_
