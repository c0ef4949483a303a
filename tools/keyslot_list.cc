#include "tools/keyslot_list.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "engine/printable.h"

namespace pellucid::cli {
namespace {

std::string FormatCost(const KeyslotInfo& keyslot) {
  return keyslot.iterations != 0
             ? fmt::format("{} iterations", keyslot.iterations)
             : fmt::format("time {}, {} KiB, {} cpus", keyslot.time,
                           keyslot.memory_kib, keyslot.cpus);
}

std::string TokensOf(const LuksInfo& luks, unsigned keyslot) {
  std::string tokens;
  for (const TokenInfo& token : luks.tokens) {
    if (std::ranges::find(token.keyslots, keyslot) == token.keyslots.end()) {
      continue;
    }
    tokens +=
        fmt::format(", token {} ({})", token.index, Printable(token.type));
  }
  return tokens;
}

}  // namespace

std::string FormatKeyslotList(const LuksInfo& luks) {
  constexpr std::array<std::string_view, 3> kPriorities = {
      "ignore: only if named", "normal", "prefer"};
  std::string text =
      fmt::format("{}: LUKS{}, {} of {} keyslots in use\n",
                  Printable(luks.header_file.native()), luks.version,
                  luks.keyslots.size(), luks.version == 1 ? 8 : 32);
  for (const KeyslotInfo& keyslot : luks.keyslots) {
    text += fmt::format("  {:>2}  {:<14}  {:<28}", keyslot.index,
                        Printable(keyslot.kdf), FormatCost(keyslot));
    if (luks.version == 2) {
      text += fmt::format("  {}", kPriorities.at(keyslot.priority));
    }
    text += TokensOf(luks, keyslot.index);
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  }
  return text;
}

}  // namespace pellucid::cli
