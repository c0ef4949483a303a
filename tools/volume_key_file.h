#ifndef PELLUCID_TOOLS_VOLUME_KEY_FILE_H_
#define PELLUCID_TOOLS_VOLUME_KEY_FILE_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "crypto/secret_bytes.h"
#include "engine/passphrase_source.h"

namespace pellucid::cli {

// Offers the volume key in a file to the first LUKS layer that asks, and the
// passphrases of another source to all others.
class VolumeKeyFile : public PassphraseSource {
 public:
  VolumeKeyFile(std::string path, std::unique_ptr<PassphraseSource> others)
      : path_(std::move(path)), others_(std::move(others)) {}

  std::optional<crypto::SecretBytes> Get(std::string_view layer,
                                         unsigned attempt) override {
    return others_->Get(layer, attempt);
  }
  std::optional<crypto::SecretBytes> GetVolumeKey(
      std::string_view layer) override;
  void Accepted() override { others_->Accepted(); }

 private:
  const std::string path_;
  const std::unique_ptr<PassphraseSource> others_;
  bool offered_ = false;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_VOLUME_KEY_FILE_H_
