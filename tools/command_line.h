#ifndef PELLUCID_TOOLS_COMMAND_LINE_H_
#define PELLUCID_TOOLS_COMMAND_LINE_H_

#include <boost/program_options/options_description.hpp>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid::cli {

// What a subcommand's --help says, and the operands it takes.
struct CommandSyntax {
  std::string_view synopsis;          // "pellucid info [OPTION]... IMAGE"
  std::string_view description;       // Lines of at most 78 columns.
  std::vector<std::string> operands;  // Names of the operands.
  size_t optional_operands = 0;       // How many of the last may be missing.
  std::vector<std::string_view> common_options;  // Long names; -h shows them.
};

// Adds --quiet, which means the same everywhere: nothing is printed but
// warnings, errors and what was asked for (a list, a hash, JSON).
void AddQuietTo(boost::program_options::options_description& options,
                bool* quiet);

// Parses `arguments` (without the subcommand's name) and stores the option
// values in the variables that `options` is bound to. Returns the operands, one
// for each of syntax.operands but the missing, or nothing after printing --help
// or -h, which it adds, or completions (completion.h). --help tells everything,
// -h the common options only. Long options cannot be abbreviated. Throws
// boost::program_options::error.
std::optional<std::vector<std::string>> ParseCommandLine(
    const CommandSyntax& syntax,
    const boost::program_options::options_description& options,
    const std::vector<std::string>& arguments);

// Returns what `run`, the rest of `subcommand`, returns. For subcommands whose
// exit codes above 1 tell of what they looked at, so that no error may have
// them: throws Error (kFailure) whatever Error, boost::program_options::error
// or std::system_error `run` throws.
int RunWithOneFailureCode(std::string_view subcommand,
                          const std::function<int()>& run);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_COMMAND_LINE_H_
