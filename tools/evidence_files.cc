#include "tools/evidence_files.h"

#include <fmt/core.h>

#include <algorithm>

#include "engine/errors.h"
#include "engine/host_file.h"

namespace pellucid::cli {

EvidenceFiles::EvidenceFiles() : before_(GetHostFileRules()) {
  HostFileRules rules = before_;
  rules.on_open = [this](const OpenedHostFile& opened) {
    if (before_.on_open) before_.on_open(opened);
    Note(opened);
  };
  SetHostFileRules(std::move(rules));
}

EvidenceFiles::~EvidenceFiles() { SetHostFileRules(before_); }

std::vector<EvidenceFiles::File> EvidenceFiles::files() const {
  const std::lock_guard lock(mutex_);
  return files_;
}

void EvidenceFiles::CheckIsNone(const std::filesystem::path& path) const {
  struct stat status = {};
  if (stat(path.c_str(), &status) != 0) return;
  for (const File& file : files()) {
    if (HostFileId::Of(file.status) == HostFileId::Of(status)) {
      throw UsageError(fmt::format(
          "{}: is a file that the report is about; it is not overwritten",
          path.native()));
    }
  }
}

void EvidenceFiles::Note(const OpenedHostFile& opened) {
  if (opened.use != HostFileUse::kEvidence) return;
  const File file = {.path = std::filesystem::absolute(opened.file),
                     .size = HostFileSize(opened.fd, opened.file),
                     .status = StatHostFile(opened.fd, opened.file)};
  const std::lock_guard lock(mutex_);
  const bool is_known = std::ranges::any_of(files_, [&](const File& known) {
    return HostFileId::Of(known.status) == HostFileId::Of(file.status);
  });
  if (!is_known) files_.push_back(file);
}

}  // namespace pellucid::cli
