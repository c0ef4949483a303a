#ifndef PELLUCID_TOOLS_FILE_LISTING_H_
#define PELLUCID_TOOLS_FILE_LISTING_H_

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/errors.h"
#include "tools/file_lister.h"

namespace pellucid::cli {

// The files of a disk as a body file of The Sleuth Kit, which mactime(1) and
// other tools make timelines of. Not synchronised.
class FileListing {
 public:
  // What keeps it from being complete.
  struct Gap {
    std::string text;
    ExitCode exit_code;  // kOk: nothing that libtsk knows stands there.
  };

  // Starts what lists files, so that what is missing is told before anybody
  // types a passphrase. Throws as FileLister does.
  FileListing(const std::filesystem::path& file, bool overwrite);

  // Lists all file systems of `disk` into the file: those of the partitions
  // with the prefix /pN/, or that of the whole disk with the prefix /. Gives
  // the part "file_listing" of a report (docs/report-json.md). Throws what
  // NewFile, ReadPartitionTable() and writing do; then there is no new file.
  nlohmann::ordered_json WriteFor(BlockDevice& disk);

  // Of WriteFor().
  const std::vector<Gap>& gaps() const { return gaps_; }

 private:
  const std::filesystem::path file_;
  const bool overwrite_;
  const std::string time_zone_;
  FileLister lister_;
  std::vector<Gap> gaps_;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_FILE_LISTING_H_
