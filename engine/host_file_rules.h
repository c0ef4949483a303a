#ifndef PELLUCID_ENGINE_HOST_FILE_RULES_H_
#define PELLUCID_ENGINE_HOST_FILE_RULES_H_

#include <filesystem>
#include <functional>

namespace pellucid {

// What is done with a host file.
enum class HostFileUse {
  kEvidence,  // Read, as an image, a header or a copy.
  kSecret,    // Read, as a key file.
  kOutput,    // Made or overwritten.
};

// A host file that has just been opened, and locked if it is to be.
struct OpenedHostFile {
  const std::filesystem::path& file;
  int fd;  // Borrowed.
  HostFileUse use;
};

// How strictly the whole process treats the files of the host.
struct HostFileRules {
  // Images, headers and the like are opened for reading only, and only where
  // that leaves their access times alone.
  bool keep_evidence = false;
  // Hears of every file, from the thread that opens it; may be empty. What it
  // throws, the opening throws.
  std::function<void(const OpenedHostFile&)> on_open;
};

// Before the first file is opened and before the first thread is started.
void SetHostFileRules(HostFileRules rules);
// Those that hold now.
const HostFileRules& GetHostFileRules();

// For those who open files.
bool MustKeepEvidence();
void ReportOpenedHostFile(const OpenedHostFile& opened);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_HOST_FILE_RULES_H_
