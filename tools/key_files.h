#ifndef PELLUCID_TOOLS_KEY_FILES_H_
#define PELLUCID_TOOLS_KEY_FILES_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "crypto/secret_bytes.h"
#include "engine/passphrase_source.h"

namespace pellucid::cli {

// The largest key file, the same as cryptsetup's limit.
inline constexpr size_t kMaxKeyFileSize = size_t{8} << 20;

// The whole content of a key file: any bytes, a trailing newline included.
// "-" is standard input. Throws IoError, and UsageError for a file of more than
// kMaxKeyFileSize.
crypto::SecretBytes ReadKeyFile(const std::string& path);

// Passphrases from files. Every layer is offered all of them: first those that
// have opened no other layer, in the order given, then the others. So one file
// serves all layers, and one file per layer, from the top down, also fits
// legacy AES, which takes whatever comes first.
//
// Files are read when they are first needed, once: they may be pipes.
class KeyFiles : public PassphraseSource {
 public:
  explicit KeyFiles(const std::vector<std::string>& paths);

  std::optional<crypto::SecretBytes> Get(std::string_view layer,
                                         unsigned attempt) override;
  void Accepted() override;

 private:
  struct KeyFile {
    std::string path;
    std::optional<crypto::SecretBytes> content;  // Nothing before it is read.
    bool accepted = false;
  };

  void OrderForNewLayer();

  std::vector<KeyFile> files_;
  std::vector<size_t> order_;  // Indices into files_, for the current layer.
  std::optional<size_t> offered_;  // Which of files_ Get() returned last.
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_KEY_FILES_H_
