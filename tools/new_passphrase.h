#ifndef PELLUCID_TOOLS_NEW_PASSPHRASE_H_
#define PELLUCID_TOOLS_NEW_PASSPHRASE_H_

#include <boost/program_options/options_description.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "crypto/secret_bytes.h"

namespace pellucid::cli {

// The options that say where a passphrase comes from that is to open a volume
// from now on. Not synchronised.
class NewPassphraseArguments {
 public:
  // The options begin with `prefix`: "" where there is no other passphrase.
  explicit NewPassphraseArguments(std::string prefix)
      : prefix_(std::move(prefix)) {}
  NewPassphraseArguments(const NewPassphraseArguments&) = delete;
  NewPassphraseArguments& operator=(const NewPassphraseArguments&) = delete;

  // Adds the options to `options`, which keeps pointers into this object.
  void AddTo(boost::program_options::options_description& options);

  // All of these are to be called after parsing.

  // The name of an option that was given, empty if none was.
  std::string GivenOption() const;
  // Refuses options that do not go together. Throws UsageError.
  void Check() const;
  const std::string& key_file() const { return key_file_; }

  // The passphrase for `volume` (a text for people) from the place that the
  // options name, or, if they name none, typed on the terminal twice, three
  // tries. Throws UsageError for an empty passphrase, for two that differ and
  // without a terminal; and IoError.
  crypto::SecretBytes Get(std::string_view volume) const;

 private:
  std::string Name(std::string_view option) const;

  const std::string prefix_;
  std::string key_file_;
  std::string key_file_offset_;
  std::string key_file_size_;
  std::string passphrase_fd_;
  std::string keyring_;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_NEW_PASSPHRASE_H_
