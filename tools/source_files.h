#ifndef PELLUCID_TOOLS_SOURCE_FILES_H_
#define PELLUCID_TOOLS_SOURCE_FILES_H_

#include <filesystem>
#include <vector>

#include "engine/image_info.h"

namespace pellucid::cli {

// Every host file that the image and its backing chain consist of.
std::vector<std::filesystem::path> SourceFiles(const ImageInfo& info);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_SOURCE_FILES_H_
