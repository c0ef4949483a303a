#include "tools/new_passphrase.h"

#include <fmt/core.h>

#include <optional>
#include <utility>

#include "engine/errors.h"
#include "tools/command_line.h"
#include "tools/key_files.h"
#include "tools/terminal_prompt.h"

namespace pellucid::cli {
namespace {

constexpr int kTries = 3;

crypto::SecretBytes AskOrThrow(std::string_view prompt) {
  std::optional<crypto::SecretBytes> answer = AskOnTerminal(prompt);
  if (!answer) throw UsageError("no passphrase was given");
  return std::move(*answer);
}

}  // namespace

crypto::SecretBytes GetNewPassphrase(std::string_view volume,
                                     const std::string& key_file) {
  if (!key_file.empty()) {
    crypto::SecretBytes content = ReadKeyFile(key_file);
    if (content.empty()) {
      throw UsageError(fmt::format("{}: the key file is empty", key_file));
    }
    return content;
  }
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

}  // namespace pellucid::cli
