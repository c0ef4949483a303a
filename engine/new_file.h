#ifndef PELLUCID_ENGINE_NEW_FILE_H_
#define PELLUCID_ENGINE_NEW_FILE_H_

#include <filesystem>
#include <memory>

#include "engine/writable_file_device.h"

namespace pellucid {

// A host file in the making. What it replaces is there, and locked, until the
// new content is complete and on the disk. Not synchronised.
class NewFile {
 public:
  // Begins an empty file for its owner alone. If something of that name exists
  // and may be overwritten, the content gathers in a file beside it that takes
  // over owner and permissions where the host lets it; a symbolic link stays
  // one, and other hard links keep the old content. Only a block device is
  // written in its place. Throws UsageError if there is something of that name,
  // unless `overwrite`, and for what is neither a regular file nor a block
  // device; ImageLocked if another program uses it; and IoError.
  NewFile(const std::filesystem::path& file, bool overwrite);
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  // Unless kept, removes what was made, but for what a block device was given.
  ~NewFile();

  // Calls itself by the name that the file will have.
  WritableFileDevice& device() { return *device_; }

  // Gives the file its name and its place on the disk, so that a crash of the
  // host leaves the old content or the new. Throws IoError.
  void Keep();

 private:
  void BeginBeside();

  // What is replaced, null without it: keeps others out of it.
  std::unique_ptr<WritableFileDevice> old_;
  std::unique_ptr<WritableFileDevice> device_;
  std::filesystem::path file_;  // Where it goes, behind symbolic links.
  std::filesystem::path made_;  // What goes unless kept; empty: nothing.
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_NEW_FILE_H_
