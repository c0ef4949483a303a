#ifndef PELLUCID_TOOLS_TERMINAL_PROMPT_H_
#define PELLUCID_TOOLS_TERMINAL_PROMPT_H_

#include <optional>
#include <string_view>
#include <vector>

#include "crypto/secret_bytes.h"
#include "engine/passphrase_source.h"

namespace pellucid::cli {

// Passphrases typed on the controlling terminal, without echo. Asks three times
// for each layer; what has opened an upper layer is tried first, unasked.
class TerminalPrompt : public PassphraseSource {
 public:
  static constexpr unsigned kTries = 3;

  // Throws UsageError if there is no terminal.
  std::optional<crypto::SecretBytes> Get(std::string_view layer,
                                         unsigned attempt) override;
  void Accepted() override;

 private:
  std::vector<crypto::SecretBytes>
      accepted_;      // Of upper layers, all different.
  size_t known_ = 0;  // accepted_.size() when the current layer began.
  std::optional<crypto::SecretBytes> offered_;  // What was typed last.
};

// Asks once: prints `prompt` on /dev/tty, reads one line without echo and drops
// its newline. Nothing if the input ends (Ctrl-D) before a character is typed.
// The terminal is as before on return, on errors, and while a signal such as
// Ctrl-C or Ctrl-Z is acted upon; after a stop it asks again. Throws UsageError
// if there is no terminal, and IoError. Only for the main thread.
std::optional<crypto::SecretBytes> AskOnTerminal(std::string_view prompt);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_TERMINAL_PROMPT_H_
