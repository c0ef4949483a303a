#include "tools/umount_command.h"

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>

#include "fuse/unmount.h"
#include "tools/command_line.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid umount [OPTION]... MOUNTPOINT",
    .description =
        "Ends what `pellucid mount` has begun. When it returns, the image is\n"
        "free for other programs.",
    .operands = {"MOUNTPOINT"},
    .common_options = {"lazy"},
};

}  // namespace

int RunUmountCommand(const std::vector<std::string>& words) {
  bool lazy = false;
  po::options_description options;
  options.add_options()("lazy,l", po::bool_switch(&lazy),
                        "unmount although files are open; the image stays in "
                        "use until the last one is closed");
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return 0;
  fuse::Unmount((*operands)[0],
                lazy ? fuse::UnmountMode::kLazy : fuse::UnmountMode::kWhenIdle);
  return 0;
}

}  // namespace pellucid::cli
