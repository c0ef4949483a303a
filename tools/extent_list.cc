#include "tools/extent_list.h"

#include <fmt/core.h>

namespace pellucid::cli {

std::string ListDataRuns(BlockDevice& device) {
  std::string lines;
  const uint64_t size = device.size();
  uint64_t begin = 0;  // Of the data in front of `offset`.
  const auto end_run = [&](uint64_t end) {
    if (end > begin) lines += fmt::format("{}\t{}\n", begin, end - begin);
  };
  for (uint64_t offset = 0; offset < size;) {
    const Extent extent = device.ExtentAt(offset, size - offset);
    if (extent.is_hole) {
      end_run(offset);
      begin = offset + extent.length;
    }
    offset += extent.length;
  }
  end_run(size);
  return lines;
}

}  // namespace pellucid::cli
