#include "tools/completion.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <boost/program_options/cmdline.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <cctype>

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

// What help calls an argument that names a file.
constexpr std::array<std::string_view, 5> kFiles = {"FILE", "HDR", "IMAGE",
                                                    "MOUNTPOINT", "PLAIN"};

bool TakesValue(const po::option_description* option) {
  return option != nullptr && option->semantic()->max_tokens() != 0;
}

// The option that `word` (--name, --name=value or -x) means, null if none.
const po::option_description* Find(const po::options_description& options,
                                   std::string_view word) {
  for (const auto& option : options.options()) {
    if (word.starts_with("--")
            ? "--" + option->long_name() == word.substr(0, word.find('='))
            : option->canonical_display_name(
                  po::command_line_style::allow_dash_for_short) == word) {
      return option.get();
    }
  }
  return nullptr;
}

// The values of what help calls `parameter`, each behind `before`.
std::string Values(std::string_view parameter, const std::string& before,
                   std::string_view begin) {
  if (std::ranges::find(kFiles, parameter) != kFiles.end()) return ":files\n";
  const bool is_choice = std::ranges::none_of(
      parameter, [](unsigned char c) { return std::isupper(c) != 0; });
  std::string lines;
  while (is_choice && !parameter.empty()) {
    const std::string_view value = parameter.substr(0, parameter.find('|'));
    lines += FormatCompletion(before + std::string(value), "", begin);
    parameter.remove_prefix(std::min(value.size() + 1, parameter.size()));
  }
  return lines;
}

std::string ValuesOf(const po::option_description& option,
                     const std::string& before, std::string_view begin) {
  // "(=auto)" stands behind it where there is a default.
  std::string parameter = option.format_parameter();
  parameter.resize(std::min(parameter.find(' '), parameter.size()));
  return Values(parameter, before, begin);
}

std::string OptionNames(const po::options_description& options,
                        std::string_view begin) {
  std::string lines;
  for (const auto& option : options.options()) {
    lines += FormatCompletion("--" + option->long_name(), option->description(),
                              begin);
  }
  return lines;
}

}  // namespace

std::string FormatCompletion(std::string_view word, std::string_view meaning,
                             std::string_view begin) {
  if (!word.starts_with(begin)) return "";
  return meaning.empty() ? fmt::format("{}\n", word)
                         : fmt::format("{}\t{}\n", word, meaning);
}

std::string FormatCompletions(const std::vector<std::string>& operands,
                              const po::options_description& options,
                              std::span<const std::string> words) {
  if (words.empty()) return "";
  const std::string& last = words.back();
  const po::option_description* awaiting = nullptr;  // Its value comes next.
  size_t operands_seen = 0;
  bool only_operands = false;
  for (const std::string& word : words.first(words.size() - 1)) {
    if (awaiting != nullptr) {
      awaiting = nullptr;
    } else if (only_operands || word.size() < 2 || word[0] != '-') {
      ++operands_seen;
    } else if (word == "--") {
      only_operands = true;
    } else if (word.find('=') == std::string::npos) {
      const po::option_description* option = Find(options, word);
      if (TakesValue(option)) awaiting = option;
    }
  }
  if (awaiting != nullptr) return ValuesOf(*awaiting, "", last);
  if (!only_operands && last.starts_with('-')) {
    const size_t equals = last.find('=');
    if (equals == std::string::npos) return OptionNames(options, last);
    const po::option_description* option = Find(options, last);
    if (!TakesValue(option)) return "";
    return ValuesOf(*option, last.substr(0, equals + 1), last);
  }
  if (operands_seen >= operands.size()) return "";
  return Values(operands[operands_seen], "", last);
}

}  // namespace pellucid::cli
