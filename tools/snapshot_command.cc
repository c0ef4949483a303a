#include "tools/snapshot_command.h"

#include <fmt/core.h>

#include <boost/program_options/errors.hpp>
#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>

#include "engine/image_snapshots.h"
#include "engine/open_image.h"
#include "engine/printable.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/info_json.h"
#include "tools/info_text.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {
    .synopsis =
        "pellucid snapshot list|create|delete|apply [OPTION]... IMAGE "
        "[NAME]",
    .description =
        "Manages the internal snapshots of a qcow2 image that nobody else "
        "uses.\n"
        "No passphrase is needed. NAME may be the id of a snapshot.\n"
        "\n"
        "  list      shows them\n"
        "  create    keeps the present state of the disk as NAME\n"
        "  delete    removes NAME\n"
        "  apply     puts the disk into the state of NAME; the present one is "
        "lost\n"
        "\n"
        "If it is interrupted, the image is as it was before or as it is to "
        "be.",
    .operands = {"list|create|delete|apply", "IMAGE", "NAME"},
    .optional_operands = 1,
    .common_options = {"json", "quiet"},
};

int List(const std::string& image, bool force_share, bool json) {
  const std::vector<SnapshotInfo> snapshots = ListSnapshots(image, force_share);
  fmt::print("{}", json ? FormatSnapshotsAsJson(snapshots)
                        : FormatSnapshotsAsText(snapshots));
  return 0;
}

}  // namespace

int RunSnapshotCommand(const std::vector<std::string>& words) {
  bool force_share = false;
  bool json = false;
  bool quiet = false;
  CommandSandbox sandbox;
  po::options_description options;
  options.add_options()  //
      ("force-share", po::bool_switch(&force_share),
       "list although another program writes to the image")  //
      ("json", po::bool_switch(&json), "list as JSON for programs");
  AddQuietTo(options, &quiet);
  sandbox.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return 0;
  const std::string& action = (*operands)[0];
  const std::string& image = (*operands)[1];
  const bool has_name = operands->size() > 2;
  if (action == "list") {
    if (has_name) {
      throw po::error(
          fmt::format("'{}' is one argument too many", (*operands)[2]));
    }
    sandbox.Enter();
    return List(image, force_share, json);
  }
  if (action != "create" && action != "delete" && action != "apply") {
    throw po::error(
        fmt::format("'{}' is not list, create, delete or apply", action));
  }
  if (!has_name) throw po::error("NAME is missing");
  if (force_share) throw po::error("--force-share is for list only");
  const std::string& name = (*operands)[2];
  OpenOptions written;
  written.image = image;
  sandbox.MayWriteImage(written);
  sandbox.Enter();
  ImageSnapshots snapshots(image);
  std::string done;
  if (action == "create") {
    done =
        fmt::format("snapshot {} \"{}\" created", snapshots.Create(name), name);
  } else if (action == "delete") {
    snapshots.Delete(name);
    done = fmt::format("snapshot \"{}\" deleted", name);
  } else {
    snapshots.Apply(name);
    done = fmt::format("snapshot \"{}\" applied", name);
  }
  if (!quiet) fmt::print("{}: {}\n", Printable(image), Printable(done));
  return 0;
}

}  // namespace pellucid::cli
