#include "tools/mount_access.h"

#include <fmt/core.h>

#include <cerrno>
#include <optional>
#include <string_view>

#include "engine/errors.h"

namespace pellucid::cli {
namespace {

// Tells whether anybody was asked: a passphrase from a pipe can be had once.
class NotedPassphrases : public PassphraseSource {
 public:
  explicit NotedPassphrases(PassphraseSource& source) : source_(source) {}

  bool asked() const { return asked_; }

  std::optional<crypto::SecretBytes> Get(std::string_view layer,
                                         unsigned attempt) override {
    asked_ = true;
    return source_.Get(layer, attempt);
  }
  std::optional<crypto::SecretBytes> GetVolumeKey(
      std::string_view layer) override {
    asked_ = true;
    return source_.GetVolumeKey(layer);
  }
  void Accepted() override { source_.Accepted(); }

 private:
  PassphraseSource& source_;
  bool asked_ = false;
};

bool IsOnlyRead(const OpenOptions& options) {
  return !options.snapshot.empty() || options.encryption == Encryption::kNone ||
         options.force_share;
}

// Can an image still be read that was not opened for writing because of
// `error`? If not, the next attempt says the same.
bool MayBeReadable(const Error& error) {
  if (const auto* io_error = dynamic_cast<const IoError*>(&error)) {
    const int host_errno = io_error->host_errno();
    return host_errno == EACCES || host_errno == EPERM || host_errno == EROFS;
  }
  return error.exit_code() == ExitCode::kCorruptImage ||
         error.exit_code() == ExitCode::kUnsupported;
}

}  // namespace

WantedAccess DecideAccess(const OpenOptions& options, bool read_only,
                          fuse::MountAccess mount_option) {
  if (mount_option == fuse::MountAccess::kReadWrite) {
    if (read_only) throw UsageError("-o rw contradicts --read-only and --forensic");
    return WantedAccess::kReadWrite;
  }
  if (read_only || mount_option == fuse::MountAccess::kReadOnly ||
      IsOnlyRead(options)) {
    return WantedAccess::kReadOnly;
  }
  return WantedAccess::kReadWriteIfPossible;
}

OpenedImage OpenWithAccess(
    const OpenOptions& options, WantedAccess wanted,
    PassphraseSource& passphrases,
    const std::function<void(const std::string&)>& warn) {
  OpenOptions attempt = options;
  attempt.writable = wanted != WantedAccess::kReadOnly;
  if (wanted != WantedAccess::kReadWriteIfPossible) {
    return OpenImage(attempt, passphrases);
  }
  NotedPassphrases noted(passphrases);
  std::string reason;
  try {
    return OpenImage(attempt, noted);
  } catch (const Error& error) {
    if (noted.asked() || !MayBeReadable(error)) throw;
    reason = error.what();
  }
  attempt.writable = false;
  OpenedImage opened = OpenImage(attempt, passphrases);
  warn(fmt::format("mounted read-only: {}", reason));
  return opened;
}

}  // namespace pellucid::cli
