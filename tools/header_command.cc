#include "tools/header_command.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <boost/program_options/errors.hpp>
#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/header_transfer.h"
#include "engine/open_image.h"
#include "engine/printable.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/header_arguments.h"
#include "tools/key_files.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {
    .synopsis =
        "pellucid header backup|restore|detach|attach|repair [OPTION]...\n"
        "                       IMAGE [FILE]",
    .description =
        "Copies, moves and repairs LUKS headers: that of IMAGE, or the "
        "detached\n"
        "one that --header names. None of this needs a passphrase.\n"
        "\n"
        "  backup IMAGE FILE   copies header and keyslots in use to a new "
        "FILE\n"
        "  restore IMAGE FILE  writes the backup FILE to where the header was\n"
        "  detach IMAGE FILE   makes FILE a header that opens the payload "
        "with\n"
        "                      --header; IMAGE stays as it is\n"
        "  attach IMAGE FILE   writes the detached header FILE into the raw\n"
        "                      volume IMAGE, in front of the payload\n"
        "  repair IMAGE        makes both copies of a LUKS2 header alike, "
        "from\n"
        "                      the newest one that is intact\n"
        "\n"
        "A backup opens the volume with the passphrases of its time, also "
        "with\n"
        "those that were removed later: keep it as safe as they are.",
    .operands = {"backup|restore|detach|attach|repair", "IMAGE", "FILE"},
    .optional_operands = 1,
    .common_options = {"header", "force", "quiet"},
};

struct HeaderCommand {
  OpenOptions options;
  std::string file;
  bool force = false;
  bool quiet = false;
};

void Say(const HeaderCommand& command, const std::string& text) {
  if (!command.quiet) fmt::print("{}\n", Printable(text));
}

void Warn(const DetachedHeader& header) {
  for (const std::string& warning : header.warnings) {
    fmt::print(stderr, "pellucid: warning: {}\n", Printable(warning));
  }
}

// "LUKS2 header 6f1f…, 2 keyslots"
std::string Describe(const luks::HeaderCopy& copy) {
  return fmt::format("LUKS{} header {}, {} keyslot{}", copy.version, copy.uuid,
                     copy.areas.size(), copy.areas.size() == 1 ? "" : "s");
}

// Every file that the image, or the container of its header, is made of.
std::vector<HostFileId> FilesOf(OpenOptions options) {
  options.encryption = Encryption::kNone;
  options.keyslot.reset();
  options.partition.reset();
  const std::filesystem::path header = std::exchange(options.header, {});
  KeyFiles no_passphrases{std::vector<OfferedSecret>()};
  std::vector<HostFileId> files = OpenImage(options, no_passphrases).files;
  if (!header.empty()) {
    options.image = header;
    options.format = options.header_format;
    std::ranges::copy(OpenImage(options, no_passphrases).files,
                      std::back_inserter(files));
  }
  return files;
}

// --force is not meant for the image that the header comes from.
void CheckTarget(const HeaderCommand& command) {
  struct stat status = {};
  // What exists is refused anyhow without --force.
  if (!command.force || stat(command.file.c_str(), &status) != 0) return;
  const std::vector<HostFileId> files = FilesOf(command.options);
  if (std::ranges::find(files, HostFileId::Of(status)) != files.end()) {
    throw UsageError(fmt::format(
        "{}: belongs to the image; it is not overwritten", command.file));
  }
}

void Backup(const HeaderCommand& command) {
  CheckTarget(command);
  const DetachedHeader header = CopyHeaderOf(command.options);
  Warn(header);
  WriteHeaderFile(command.file, header.copy, command.force);
  Say(command,
      fmt::format("{}: backup of {}", command.file, Describe(header.copy)));
}

void Detach(const HeaderCommand& command) {
  CheckTarget(command);
  const DetachedHeader header = DetachHeaderOf(command.options);
  Warn(header);
  WriteHeaderFile(command.file, header.copy, command.force);
  Say(command,
      fmt::format("{}: {}, for a payload that begins at byte {}", command.file,
                  Describe(header.copy), header.copy.payload_offset));
}

// Restores or attaches.
void Write(const HeaderCommand& command, Target target) {
  OpenOptions from;
  from.image = command.file;
  const DetachedHeader header = CopyHeaderOf(from);
  Warn(header);
  RestoreHeader(command.options, header.copy, target, command.force);
  const OpenOptions& to = command.options;
  Say(command, fmt::format("{}: {} written",
                           (to.header.empty() ? to.image : to.header).native(),
                           Describe(header.copy)));
}

void Repair(const HeaderCommand& command) {
  const bool changed = RepairHeader(command.options, command.force);
  const OpenOptions& options = command.options;
  Say(command,
      fmt::format(
          "{}: {}",
          (options.header.empty() ? options.image : options.header).native(),
          changed ? "both copies of the header are alike again"
                  : "the header needs no repair"));
}

void Run(const std::string& action, const HeaderCommand& command) {
  if (action == "backup") return Backup(command);
  if (action == "restore") return Write(command, Target::kAsItWas);
  if (action == "detach") return Detach(command);
  if (action == "attach") return Write(command, Target::kInFrontOnly);
  Repair(command);
}

void CheckAction(const std::string& action, bool has_file) {
  constexpr std::array<std::string_view, 5> kActions = {
      "backup", "restore", "detach", "attach", "repair"};
  if (std::ranges::find(kActions, action) == kActions.end()) {
    throw po::error(fmt::format(
        "'{}' is not backup, restore, detach, attach or repair", action));
  }
  if (action == "repair" && has_file) {
    throw po::error("repair takes IMAGE only");
  }
  if (action != "repair" && !has_file) throw po::error("FILE is missing");
}

}  // namespace

int RunHeaderCommand(const std::vector<std::string>& words) {
  HeaderArguments arguments;
  HeaderCommand command;
  CommandSandbox sandbox;
  po::options_description options;
  arguments.AddPartitionTo(options);
  arguments.AddPlaceTo(options);
  options.add_options()  //
      ("force", po::bool_switch(&command.force),
       "overwrite an existing FILE; restore over a header of another volume, "
       "or over what is no header; repair a header whose beginning has become "
       "something else");
  AddQuietTo(options, &command.quiet);
  arguments.AddSharingTo(options);
  sandbox.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return 0;
  CheckAction((*operands)[0], operands->size() > 2);
  command.options = arguments.ToOpenOptions((*operands)[1]);
  if (operands->size() > 2) command.file = (*operands)[2];
  const std::string& action = (*operands)[0];
  if (action == "backup" || action == "detach") {
    sandbox.MayMake(command.file);
  } else {
    sandbox.MayWriteImage(command.options);
  }
  sandbox.Enter();
  Run(action, command);
  return 0;
}

}  // namespace pellucid::cli
