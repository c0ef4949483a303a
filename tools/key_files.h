#ifndef PELLUCID_TOOLS_KEY_FILES_H_
#define PELLUCID_TOOLS_KEY_FILES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "crypto/secret_bytes.h"
#include "engine/passphrase_source.h"

namespace pellucid::cli {

// The largest key file, the same as cryptsetup's limit.
inline constexpr size_t kMaxKeyFileSize = size_t{8} << 20;

// The part of a key file that counts.
struct KeyFilePart {
  uint64_t offset = 0;
  std::optional<uint64_t> size;  // All that follows if empty.
};

// The part that the options PREFIXkey-file-offset and PREFIXkey-file-size say;
// each is empty if it was not given. Throws UsageError.
KeyFilePart ParseKeyFilePart(const std::string& prefix,
                             const std::string& offset,
                             const std::string& size);

// The content of a key file, or `part` of it: any bytes, a trailing newline
// included. "-" is standard input. Throws IoError, and UsageError for a file of
// more than kMaxKeyFileSize or one that ends in front of or within the part.
crypto::SecretBytes ReadKeyFile(const std::string& path,
                                const KeyFilePart& part = {});

// The first line of an open descriptor, without its newline. Throws IoError,
// and UsageError if it is longer than a key file may be.
crypto::SecretBytes ReadPassphraseLine(int fd);

// A secret that is read when it is first needed, once: it may be a pipe.
struct OfferedSecret {
  std::function<crypto::SecretBytes()> read;
  bool for_backing = false;  // Not for the layers that the user named.
};

// Passphrases from files and other places where nobody is asked. Every layer is
// offered all of them: first those that have opened no other layer, in the
// order given, then the others. So one file serves all layers, and one file per
// layer, from the top down, also fits legacy AES, which takes whatever comes
// first. Layers that the user did not name, which are backing images, get the
// secrets for those in front of all others.
class KeyFiles : public PassphraseSource {
 public:
  explicit KeyFiles(const std::vector<std::string>& paths);
  // `named` are the layers that the user named, as Get() calls them. A layer
  // for which there is nothing among `secrets` is left to `others`, if given.
  explicit KeyFiles(std::vector<OfferedSecret> secrets,
                    std::vector<std::string> named = {},
                    std::unique_ptr<PassphraseSource> others = nullptr);

  std::optional<crypto::SecretBytes> Get(std::string_view layer,
                                         unsigned attempt) override;
  void Accepted() override;

 private:
  struct KeyFile {
    OfferedSecret secret;
    std::optional<crypto::SecretBytes> content;  // Nothing before it is read.
    bool accepted = false;
  };

  void OrderForLayer(std::string_view layer);

  std::vector<KeyFile> files_;
  const std::vector<std::string> named_;
  const std::unique_ptr<PassphraseSource> others_;  // May be null.
  std::vector<size_t> order_;  // Indices into files_, for the current layer.
  std::optional<size_t> offered_;  // Which of files_ Get() returned last.
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_KEY_FILES_H_
