#ifndef PELLUCID_TOOLS_COMPLETION_H_
#define PELLUCID_TOOLS_COMPLETION_H_

#include <boost/program_options/options_description.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid::cli {

// The first word of a command line that asks what its last word may become. The
// scripts in packaging/ use it; it is in no help.
inline constexpr char kCompletionWord[] = "--complete";

// What the last of `words` may become: a line for each word that begins with
// it, and behind a tab what it means; or the line ":files" if it is the name of
// a file. `words` are those behind a subcommand that takes `operands` and
// `options`.
std::string FormatCompletions(
    const std::vector<std::string>& operands,
    const boost::program_options::options_description& options,
    std::span<const std::string> words);

// The line for `word`, nothing unless it begins with `begin`.
std::string FormatCompletion(std::string_view word, std::string_view meaning,
                             std::string_view begin);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_COMPLETION_H_
