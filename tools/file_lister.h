#ifndef PELLUCID_TOOLS_FILE_LISTER_H_
#define PELLUCID_TOOLS_FILE_LISTER_H_

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "engine/block_device.h"
#include "engine/errors.h"
#include "tools/file_descriptor.h"

namespace pellucid::cli {

// Lists the files of file systems, deleted ones as well, as fls(1) of The
// Sleuth Kit does. Its library, which was not made for hostile file systems,
// is in a program of its own, tools/lister, with no rights but to ask for bytes
// of the volume and to send lines: what it does wrong ends a list, nothing
// else. Not synchronised.
class FileLister {
 public:
  // What a volume may cost.
  struct Limits {
    uint64_t cpu_seconds = 3600;
    uint64_t memory = uint64_t{4} << 30;  // Bytes.
    uint64_t entries = 100'000'000;
  };

  struct Result {
    std::string type;  // As libtsk calls it; empty if it knows none there.
    uint64_t entries = 0;
    uint64_t deleted = 0;
    std::string error;  // Why not all is listed; empty if it is.
    ExitCode exit_code = ExitCode::kOk;  // Other if a list ended early.
  };

  // Starts the program. Throws Unsupported if it is not there, as in a build
  // without libtsk, and IoError. `time_zone` is where the times of FAT, which
  // knows no zones, are from, as TZ has it (tzset(3)).
  FileLister(const std::filesystem::path& program, const std::string& time_zone,
             const Limits& limits);
  FileLister(const FileLister&) = delete;
  FileLister& operator=(const FileLister&) = delete;
  // Ends the program, and what it has begun, and waits for that.
  ~FileLister();

  // The program that belongs to the running one.
  static std::filesystem::path ProgramOfThisBuild();

  const std::string& libtsk_version() const { return process_.libtsk_version; }

  // Gives `add_line` the line of each entry, with its end, in the order of
  // fls(1) -r -m. Names begin with `prefix`, which ends with '/' and has at
  // most 63 characters. Damage of any kind ends up in the result; throws what
  // add_line() does, after which no other volume can be listed.
  Result List(BlockDevice& volume, std::string_view prefix,
              const std::function<void(std::string_view)>& add_line);

 private:
  class Session;
  struct Process {
    FileDescriptor control;
    FileDescriptor data;
    pid_t pid;
    std::string libtsk_version;
  };

  static Process Start(const std::filesystem::path& program,
                       const std::string& time_zone);

  const Limits limits_;
  Process process_;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_FILE_LISTER_H_
