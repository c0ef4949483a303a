#include "tools/volume_key_file.h"

#include "tools/key_files.h"

namespace pellucid::cli {

std::optional<crypto::SecretBytes> VolumeKeyFile::GetVolumeKey(
    std::string_view /*layer*/) {
  if (std::exchange(offered_, true)) return std::nullopt;
  return ReadKeyFile(path_);
}

}  // namespace pellucid::cli
