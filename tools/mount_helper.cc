#include "tools/mount_helper.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <boost/program_options/errors.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <string_view>

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

// Words of fstab that mount(8), systemd and others have acted upon already.
constexpr std::array<std::string_view, 10> kForOthers = {
    "rw",    "auto",  "noauto", "user",   "nouser",
    "users", "owner", "group",  "nofail", "_netdev"};

bool IsForOthers(std::string_view option) {
  const std::string_view name = option.substr(0, option.find('='));
  return std::ranges::find(kForOthers, name) != kForOthers.end() ||
         name.starts_with("x-") || name.starts_with("X-") || name == "comment";
}

// The parts of `list` between commas, but for those behind a backslash.
std::vector<std::string> SplitAtCommas(const std::string& list) {
  std::vector<std::string> parts(1);
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] == ',') {
      parts.emplace_back();
      continue;
    }
    parts.back() += list[i];
    if (list[i] == '\\' && i + 1 < list.size()) parts.back() += list[++i];
  }
  std::erase(parts, "");
  return parts;
}

std::string WithoutBackslashes(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) ++i;
    plain += text[i];
  }
  return plain;
}

// Adds what one option behind -o means.
void Translate(const std::string& option, const po::options_description& table,
               std::vector<std::string>& words) {
  if (IsForOthers(option)) return;
  const size_t equals = option.find('=');
  const std::string name = option.substr(0, equals);
  const auto known = std::ranges::find_if(
      table.options(),
      [&](const auto& candidate) { return candidate->long_name() == name; });
  if (known == table.options().end()) {
    words.insert(words.end(), {"-o", option});
    return;
  }
  const bool takes_value = (*known)->semantic()->max_tokens() != 0;
  if (takes_value == (equals == std::string::npos)) {
    throw po::error(fmt::format(
        "-o {} {}", name, takes_value ? "needs a value" : "takes no value"));
  }
  words.push_back("--" + WithoutBackslashes(option));
}

}  // namespace

std::optional<std::vector<std::string>> WordsOfMountHelper(
    const std::vector<std::string>& words,
    const po::options_description& table) {
  std::vector<std::string> operands;
  std::vector<std::string> translated;
  bool fake = false;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word.size() < 2 || word[0] != '-') {
      operands.push_back(word);
      continue;
    }
    // Flags may stand together, the last one with its value: -no ro.
    for (size_t at = 1; at < word.size(); ++at) {
      const char flag = word[at];
      if (flag == 'f') fake = true;
      if (std::string_view("fnsv").find(flag) != std::string_view::npos) {
        continue;
      }
      if (flag != 'o' && flag != 't') {
        throw po::error(fmt::format("unrecognised option '{}'", word));
      }
      if (at + 1 == word.size() && i + 1 == words.size()) {
        throw po::error(fmt::format("-{} needs a value", flag));
      }
      const std::string value =
          at + 1 < word.size() ? word.substr(at + 1) : words[++i];
      if (flag == 'o') {
        for (const std::string& option : SplitAtCommas(value)) {
          Translate(option, table, translated);
        }
      }
      break;
    }
  }
  if (operands.size() != 2) {
    throw po::error(
        fmt::format("usage: {} IMAGE MOUNTPOINT [-fnsv] [-o "
                    "OPTION,...]; see {}(8)",
                    kMountHelperName, kMountHelperName));
  }
  if (fake) return std::nullopt;
  translated.push_back("--");
  translated.insert(translated.end(), operands.begin(), operands.end());
  return translated;
}

}  // namespace pellucid::cli
