#include "tools/command_line.h"

#include <fmt/core.h>

#include <boost/program_options/parsers.hpp>
#include <boost/program_options/positional_options.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <boost/program_options/variables_map.hpp>
#include <sstream>

#include "engine/errors.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

void PrintHelp(const CommandSyntax& syntax,
               const po::options_description& options) {
  std::ostringstream table;
  table << options;
  fmt::print("Usage: {}\n\n{}\n\n{}", syntax.synopsis, syntax.description,
             table.str());
}

void CheckOperandCount(const CommandSyntax& syntax,
                       const std::vector<std::string>& operands) {
  if (operands.size() < syntax.operands.size()) {
    throw UsageError(
        fmt::format("{} is missing", syntax.operands[operands.size()]));
  }
  if (operands.size() > syntax.operands.size()) {
    throw UsageError(fmt::format("'{}' is one argument too many",
                                 operands[syntax.operands.size()]));
  }
}

}  // namespace

std::optional<std::vector<std::string>> ParseCommandLine(
    const CommandSyntax& syntax, const po::options_description& options,
    const std::vector<std::string>& arguments) {
  bool help = false;
  po::options_description visible("Options");
  visible.add(options).add_options()("help,h", po::bool_switch(&help),
                                     "print this help and exit");
  std::vector<std::string> operands;
  po::options_description hidden;
  hidden.add_options()("operand", po::value(&operands));
  po::options_description all;
  all.add(visible).add(hidden);
  po::positional_options_description positions;
  positions.add("operand", -1);

  namespace style = po::command_line_style;
  po::variables_map values;
  po::store(po::command_line_parser(arguments)
                .options(all)
                .positional(positions)
                .style(style::unix_style & ~style::allow_guessing)
                .run(),
            values);
  po::notify(values);
  if (help) {
    PrintHelp(syntax, visible);
    return std::nullopt;
  }
  CheckOperandCount(syntax, operands);
  return operands;
}

std::string Printable(std::string_view text) {
  std::string printable;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool is_c1 = byte == 0xc2 && i + 1 < text.size() &&
                       static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (byte < 0x20 || byte == 0x7f) {
      printable += fmt::format("\\x{:02x}", byte);
    } else if (is_c1) {
      printable += fmt::format("\\x{:02x}\\x{:02x}", byte,
                               static_cast<unsigned char>(text[++i]));
    } else {
      printable += text[i];
    }
  }
  return printable;
}

}  // namespace pellucid::cli
