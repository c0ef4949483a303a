#include "tools/source_files.h"

namespace pellucid::cli {

std::vector<std::filesystem::path> SourceFiles(const ImageInfo& info) {
  std::vector<std::filesystem::path> files;
  for (const ImageInfo* member = &info; member != nullptr;
       member = member->backing.get()) {
    files.push_back(member->file);
    if (member->luks) files.push_back(member->luks->header_file);
    if (member->qcow2 && !member->qcow2->data_file.empty()) {
      // Relative names count from the image's folder; operator/ keeps an
      // absolute one.
      files.push_back(member->file.parent_path() / member->qcow2->data_file);
    }
  }
  return files;
}

}  // namespace pellucid::cli
