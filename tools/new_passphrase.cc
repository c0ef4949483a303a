#include "tools/new_passphrase.h"

#include <fmt/core.h>

#include <boost/program_options/value_semantic.hpp>
#include <limits>
#include <optional>
#include <utility>

#include "engine/errors.h"
#include "engine/printable.h"
#include "tools/kernel_keyring.h"
#include "tools/key_files.h"
#include "tools/number_option.h"
#include "tools/terminal_prompt.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

constexpr int kTries = 3;

crypto::SecretBytes AskOrThrow(std::string_view prompt) {
  std::optional<crypto::SecretBytes> answer = AskOnTerminal(prompt);
  if (!answer) throw UsageError("no passphrase was given");
  return std::move(*answer);
}

crypto::SecretBytes AskTwice(std::string_view volume) {
  const std::string name = Printable(volume);
  std::string complaint;
  for (int i = 0; i < kTries; ++i) {
    crypto::SecretBytes first =
        AskOrThrow(fmt::format("{}New passphrase for {}: ", complaint, name));
    if (first.empty()) {
      complaint = "An empty passphrase protects nothing, try again\n";
      continue;
    }
    const crypto::SecretBytes second = AskOrThrow("The same again: ");
    if (crypto::ConstantTimeEquals(first.bytes(), second.bytes())) {
      return first;
    }
    complaint = "The two differ, try again\n";
  }
  throw UsageError(
      fmt::format("no passphrase for {} was typed twice alike", volume));
}

crypto::SecretBytes NotEmpty(crypto::SecretBytes passphrase,
                             const std::string& what) {
  if (passphrase.empty()) {
    throw UsageError(
        fmt::format("{} is empty: an empty passphrase protects nothing", what));
  }
  return passphrase;
}

}  // namespace

std::string NewPassphraseArguments::Name(std::string_view option) const {
  return fmt::format("{}{}", prefix_, option);
}

void NewPassphraseArguments::AddTo(po::options_description& options) {
  const auto add = [&](std::string* value, std::string_view option,
                       const char* value_name, const char* help) {
    options.add_options()(Name(option).c_str(),
                          po::value(value)->value_name(value_name), help);
  };
  add(&key_file_, "key-file", "FILE",
      "all bytes of FILE are the new passphrase; - is standard input; without "
      "it, the passphrase is asked for twice on the terminal");
  add(&key_file_offset_, "key-file-offset", "BYTES",
      "skip that much of the key file");
  add(&key_file_size_, "key-file-size", "BYTES",
      "use only that much of the key file");
  add(&passphrase_fd_, "passphrase-fd", "N",
      "read the new passphrase from file descriptor N, up to the first "
      "newline");
  add(&keyring_, "keyring", "DESCRIPTION",
      "take the new passphrase from the kernel keyring: the key of type user "
      "with this description");
}

std::string NewPassphraseArguments::GivenOption() const {
  if (!key_file_.empty()) return Name("key-file");
  if (!key_file_offset_.empty()) return Name("key-file-offset");
  if (!key_file_size_.empty()) return Name("key-file-size");
  if (!passphrase_fd_.empty()) return Name("passphrase-fd");
  return keyring_.empty() ? "" : Name("keyring");
}

void NewPassphraseArguments::Check() const {
  const int places = (key_file_.empty() ? 0 : 1) +
                     (passphrase_fd_.empty() ? 0 : 1) +
                     (keyring_.empty() ? 0 : 1);
  if (places > 1) {
    throw UsageError(
        fmt::format("a new passphrase comes from one place: --{}, --{} or --{}",
                    Name("key-file"), Name("passphrase-fd"), Name("keyring")));
  }
  if (key_file_.empty() &&
      !(key_file_offset_.empty() && key_file_size_.empty())) {
    throw UsageError(fmt::format("--{} and --{} need --{}",
                                 Name("key-file-offset"), Name("key-file-size"),
                                 Name("key-file")));
  }
}

crypto::SecretBytes NewPassphraseArguments::Get(std::string_view volume) const {
  Check();
  if (!key_file_.empty()) {
    return NotEmpty(
        ReadKeyFile(key_file_, ParseKeyFilePart(prefix_, key_file_offset_,
                                                key_file_size_)),
        key_file_ + ": the key file");
  }
  if (!passphrase_fd_.empty()) {
    const uint32_t fd = ParseNumber(Name("passphrase-fd"), passphrase_fd_, 0,
                                    std::numeric_limits<int>::max());
    return NotEmpty(ReadPassphraseLine(static_cast<int>(fd)),
                    fmt::format("file descriptor {}: the first line", fd));
  }
  if (!keyring_.empty()) {
    return NotEmpty(ReadKeyringKey(keyring_),
                    fmt::format("the key \"{}\"", keyring_));
  }
  return AskTwice(volume);
}

}  // namespace pellucid::cli
