#include "tools/info_command.h"

#include <fmt/core.h>

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>

#include "engine/open_image.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/forensic_run.h"
#include "tools/info_json.h"
#include "tools/info_text.h"
#include "tools/open_arguments.h"
#include "tools/terminal_window.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid info [OPTION]... IMAGE",
    .description =
        "Prints what the metadata of IMAGE and of its backing files says:\n"
        "sizes, encryption, keyslots, snapshots. Asks for no passphrase.",
    .operands = {"IMAGE"},
    .common_options = {"json", "header"},
};

}  // namespace

int RunInfoCommand(const std::vector<std::string>& words) {
  OpenArguments arguments;
  bool json = false;
  CommandSandbox sandbox;
  po::options_description options;
  options.add_options()("json", po::bool_switch(&json),
                        "print JSON for programs");
  arguments.AddPartitionTo(options);
  arguments.AddTo(options);
  sandbox.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return 0;

  OpenOptions open_options = arguments.ToOpenOptions();
  open_options.image = (*operands)[0];
  sandbox.Enter();
  return RunForensically(arguments.forensic(), "info", words, [&] {
    const ImageInfo info = DescribeImage(open_options);
    fmt::print("{}", json ? FormatInfoAsJson(info)
                          : ForStandardOutput(FormatInfoAsText(info)));
    return 0;
  });
}

}  // namespace pellucid::cli
