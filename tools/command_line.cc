#include "tools/command_line.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/program_options/errors.hpp>
#include <boost/program_options/parsers.hpp>
#include <boost/program_options/positional_options.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <boost/program_options/variables_map.hpp>
#include <span>
#include <sstream>
#include <system_error>

#include "engine/errors.h"
#include "tools/completion.h"
#include "tools/mistyped_word.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

constexpr size_t kHelpColumns = 79;
constexpr size_t kHelpIndent = 22;  // Where the descriptions begin.

// "-f, --foreground", "--key-file FILE".
std::string FormatOptionName(const po::option_description& option) {
  std::string name = option.format_name();
  // Boost writes "-f [ --foreground ]".
  if (const size_t bracket = name.find(" [ "); bracket != std::string::npos) {
    name.replace(bracket, 3, ", ");
    name.resize(name.size() - 2);
  }
  const std::string parameter = option.format_parameter();
  return parameter.empty() ? name : name + " " + parameter;
}

// One option with its description, wrapped between words.
std::string FormatOption(const po::option_description& option) {
  std::string text = "  " + FormatOptionName(option);
  size_t column = text.size();
  if (column + 2 > kHelpIndent) {
    text += '\n';
    column = 0;
  }
  text.append(kHelpIndent - column, ' ');
  column = kHelpIndent;
  std::istringstream words(option.description());
  for (std::string word; words >> word;) {
    if (column > kHelpIndent && column + 1 + word.size() > kHelpColumns) {
      text += '\n';
      text.append(kHelpIndent, ' ');
      column = kHelpIndent;
    } else if (column > kHelpIndent) {
      text += ' ';
      ++column;
    }
    text += word;
    column += word.size();
  }
  return text + '\n';
}

void PrintHelp(const CommandSyntax& syntax,
               const po::options_description& options) {
  fmt::print("Usage: {}\n\n{}\n\nOptions:\n", syntax.synopsis,
             syntax.description);
  for (const auto& option : options.options()) {
    fmt::print("{}", FormatOption(*option));
  }
}

// What -h says: "pellucid info" are the first words of the synopsis.
void PrintShortHelp(const CommandSyntax& syntax,
                    const po::options_description& options) {
  std::istringstream words{std::string(syntax.synopsis)};
  std::string program;
  std::string subcommand;
  words >> program >> subcommand;
  fmt::print("Usage: {}\n\nCommon options:\n", syntax.synopsis);
  for (const std::string_view name : syntax.common_options) {
    fmt::print("{}", FormatOption(options.find(std::string(name),
                                               /*approx=*/false)));
  }
  fmt::print("\n`{0} {1} --help` tells all, and so does `man {0}-{1}`.\n",
             program, subcommand);
}

// Was --help spelled -h?
bool AsksForShortHelp(const po::parsed_options& parsed) {
  const auto help = std::ranges::find(parsed.options, "help",
                                      &po::basic_option<char>::string_key);
  return help != parsed.options.end() &&
         !help->original_tokens.front().starts_with("--");
}

// Throws what says more than `error`, if an option has nearly that name.
void ThrowIfMistyped(const po::unknown_option& error,
                     const po::options_description& options) {
  std::vector<std::string_view> names;
  for (const auto& option : options.options()) {
    names.push_back(option->long_name());
  }
  std::string word = error.get_option_name();
  word.resize(std::min(word.find('='), word.size()));
  word.erase(0, word.find_first_not_of('-'));
  const std::string_view nearest = NearestWord(word, names);
  if (nearest.empty()) return;
  throw po::error(
      fmt::format("{}; did you mean '--{}'?", error.what(), nearest));
}

void CheckOperandCount(const CommandSyntax& syntax,
                       const std::vector<std::string>& operands) {
  if (operands.size() + syntax.optional_operands < syntax.operands.size()) {
    throw po::error(
        fmt::format("{} is missing", syntax.operands[operands.size()]));
  }
  if (operands.size() > syntax.operands.size()) {
    throw po::error(fmt::format("'{}' is one argument too many",
                                operands[syntax.operands.size()]));
  }
}

}  // namespace

void AddQuietTo(po::options_description& options, bool* quiet) {
  options.add_options()(
      "quiet", po::bool_switch(quiet),
      "print nothing but warnings, errors and what was asked for");
}

std::optional<std::vector<std::string>> ParseCommandLine(
    const CommandSyntax& syntax, const po::options_description& options,
    const std::vector<std::string>& arguments) {
  bool help = false;
  po::options_description help_option;
  help_option.add_options()(
      "help,h", po::bool_switch(&help),
      "print the common options (-h), or all of them (--help)");
  po::options_description visible;
  visible.add(options).add(help_option);
  if (!arguments.empty() && arguments.front() == kCompletionWord) {
    fmt::print("{}", FormatCompletions(syntax.operands, visible,
                                       std::span(arguments).subspan(1)));
    return std::nullopt;
  }
  std::vector<std::string> operands;
  po::options_description hidden;
  hidden.add_options()("operand", po::value(&operands));
  po::options_description all;
  all.add(visible).add(hidden);
  po::positional_options_description positions;
  positions.add("operand", -1);

  namespace style = po::command_line_style;
  po::variables_map values;
  bool short_help = false;
  try {
    const po::parsed_options parsed =
        po::command_line_parser(arguments)
            .options(all)
            .positional(positions)
            .style(style::unix_style & ~style::allow_guessing)
            .run();
    po::store(parsed, values);
    short_help = AsksForShortHelp(parsed);
  } catch (const po::unknown_option& error) {
    ThrowIfMistyped(error, visible);
    throw;
  }
  po::notify(values);
  if (help) {
    short_help ? PrintShortHelp(syntax, visible) : PrintHelp(syntax, visible);
    return std::nullopt;
  }
  CheckOperandCount(syntax, operands);
  return operands;
}

int RunWithOneFailureCode(std::string_view subcommand,
                          const std::function<int()>& run) {
  try {
    return run();
  } catch (const Error& error) {
    throw Error(ExitCode::kFailure, error.what());
  } catch (const po::error& error) {
    throw Error(ExitCode::kFailure, fmt::format("{} (see `pellucid {} --help`)",
                                                error.what(), subcommand));
  } catch (const std::system_error& error) {
    throw Error(ExitCode::kFailure, error.what());
  }
}

}  // namespace pellucid::cli
