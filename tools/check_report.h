#ifndef PELLUCID_TOOLS_CHECK_REPORT_H_
#define PELLUCID_TOOLS_CHECK_REPORT_H_

#include <filesystem>
#include <string>

#include "engine/check_image.h"

namespace pellucid::cli {

// What a check found, for people: what is wrong by kind, the first few of each
// with the remedy, and a summary. Lines end with newlines.
std::string FormatCheckAsText(const std::filesystem::path& image,
                              const CheckReport& report);

// The same as JSON for programs. What `qemu-img check --output=json` prints has
// its names, and is always there.
std::string FormatCheckAsJson(const std::filesystem::path& image,
                              const CheckReport& report);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_CHECK_REPORT_H_
