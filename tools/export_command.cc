#include "tools/export_command.h"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <system_error>

#include "engine/errors.h"
#include "engine/open_image.h"
#include "engine/open_unallocated.h"
#include "tools/byte_size.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/copy_arguments.h"
#include "tools/export_target.h"
#include "tools/extent_list.h"
#include "tools/forensic_run.h"
#include "tools/interrupt_watch.h"
#include "tools/manifest_arguments.h"
#include "tools/open_arguments.h"
#include "tools/ordered_hashes.h"
#include "tools/plaintext_copy.h"
#include "tools/progress_bar.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid export [OPTION]... IMAGE FILE|-",
    .description =
        "Copies the plaintext of IMAGE to FILE, or to standard output (-).\n"
        "A new FILE can be read by its owner only. What the image does not\n"
        "store, and longer runs of zeros, become holes in FILE.\n"
        "\n"
        "With --unallocated it copies what IMAGE holds but no longer refers "
        "to,\n"
        "such as a deleted snapshot: FILE is as long as IMAGE, and each "
        "cluster\n"
        "stands where it is in IMAGE, decrypted.",
    .operands = {"IMAGE", "FILE"},
    .common_options = {"hash", "offset", "length", "force", "key-file",
                       "header"},
};

struct ExportArguments {
  CommandSandbox sandbox;
  OpenArguments open;
  CopyArguments copy;
  ManifestArguments manifest;
  std::string length;
  bool force = false;
  bool unallocated = false;
  std::string list;

  void AddTo(po::options_description& options);
};

void ExportArguments::AddTo(po::options_description& options) {
  copy.AddTo(options, "begin at byte N; suffixes K, M, G, T",
             "print hashes of the copied bytes (md5, sha1, sha256, blake2b, "
             "...) on standard output; on standard error if the data goes to "
             "standard output",
             "write zeros instead of holes");
  options.add_options()  //
      ("length", po::value(&length)->value_name("N"),
       "copy N bytes, not all up to the end")  //
      ("force", po::bool_switch(&force),
       "overwrite an existing FILE or manifest, or a block device");
  manifest.AddTo(options);
  open.AddPartitionTo(options);
  open.AddTo(options);
  sandbox.AddTo(options);
  options.add_options()  //
      ("unallocated", po::bool_switch(&unallocated),
       "copy the clusters of a qcow2 image that nothing refers to")  //
      ("list", po::value(&list)->value_name("FILE"),
       "with --unallocated: write to FILE where there are any, a line of "
       "offset "
       "and length each");
}

OpenedImage OpenSource(const ExportArguments& arguments,
                       const OpenOptions& options) {
  const auto passphrases = arguments.open.MakePassphraseSource(options);
  if (!arguments.unallocated) return OpenAndWarn(options, *passphrases);
  OpenedImage image = OpenUnallocated(options, *passphrases);
  WarnAbout(image);
  return image;
}

void WriteList(const ExportTargetOptions& options, const OpenedImage& image) {
  const std::string lines = ListDataRuns(*image.device);
  ExportTarget list(options, lines.size(), image.files);
  if (!lines.empty()) list.Write(0, std::as_bytes(std::span(lines)));
  list.Finish();
}

// A part as the user asked for it, before the size of the image is known.
struct WantedPart {
  uint64_t offset = 0;
  std::optional<uint64_t> length;
};

WantedPart ParsePart(const ExportArguments& arguments) {
  WantedPart part = {.offset = arguments.copy.Offset(), .length = {}};
  if (!arguments.length.empty()) {
    part.length = ParseByteSize("length", arguments.length);
  }
  return part;
}

ByteRange PartOf(uint64_t size, const WantedPart& wanted) {
  if (wanted.offset > size) {
    throw UsageError(
        fmt::format("--offset {} is behind the end of the plaintext, which has "
                    "{} bytes",
                    wanted.offset, size));
  }
  const uint64_t rest = size - wanted.offset;
  if (wanted.length.value_or(0) > rest) {
    throw UsageError(fmt::format(
        "--length {} reaches past the end: from byte {} on, the plaintext has "
        "{} bytes",
        *wanted.length, wanted.offset, rest));
  }
  return {.offset = wanted.offset, .length = wanted.length.value_or(rest)};
}

void Copy(BlockDevice& image, ByteRange part, ExportTarget& target,
          const CopyWitnesses& witnesses, const ExportArguments& arguments) {
  // A stream is left at once: nothing is there to clean up, and its reader may
  // be stuck.
  std::optional<InterruptWatch> interrupts;
  if (!target.is_stream()) interrupts.emplace();
  ProgressBar bar(part.length, arguments.copy.quiet());
  PlaintextCopy copy(image, part, target, 0, witnesses);
  copy.Run(arguments.copy.Threads(), [&](Progress progress) {
    if (interrupts) InterruptWatch::Check();
    bar.Show(progress);
  });
  if (interrupts) InterruptWatch::Check();
  target.Finish();
}

// What --manifest asks for; null without it.
std::unique_ptr<NewManifest> BeginManifest(const ExportArguments& arguments,
                                           const OpenedImage& image,
                                           const std::string& image_name,
                                           ByteRange part) {
  if (!arguments.manifest.wanted()) return nullptr;
  ManifestHeader header;
  header.image = image_name;
  header.image_size = image.device->size();
  header.offset = part.offset;
  header.size = part.length;
  arguments.manifest.Describe(header);
  return std::make_unique<NewManifest>(arguments.manifest, arguments.force,
                                       header);
}

// The export proper, when everything that can be refused has been.
int Export(const OpenOptions& open_options, const WantedPart& wanted,
           const ExportTargetOptions& target_options,
           const ExportTargetOptions& list_options,
           const std::vector<std::string>& hash_names,
           const ExportArguments& arguments) {
  const OpenedImage image = OpenSource(arguments, open_options);
  arguments.manifest.CheckIsNone(image.files);
  const ByteRange part = PartOf(image.device->size(), wanted);
  ExportTarget target(target_options, part.length, image.files);
  std::unique_ptr<NewManifest> manifest;
  std::vector<Digest> digests;
  try {
    arguments.manifest.CheckIsNone({target.id()});
    manifest = BeginManifest(arguments, image, open_options.image, part);
    std::optional<OrderedHashes> hashes;
    if (!hash_names.empty()) hashes.emplace(hash_names);
    Copy(*image.device, part, target,
         {.hashes = hashes ? &*hashes : nullptr,
          .manifest = manifest ? &manifest->writer : nullptr},
         arguments);
    if (!arguments.list.empty()) WriteList(list_options, image);
    if (hashes) digests = hashes->Finish();
    if (manifest) {
      manifest->writer.Finish(digests);
      manifest->file.Keep();
    }
  } catch (const Interrupted& interrupted) {
    target.Discard();
    manifest.reset();
    kill(getpid(), interrupted.signal);
    return static_cast<int>(ExitCode::kFailure);
  } catch (...) {
    target.Discard();
    throw;
  }
  if (!digests.empty()) {
    arguments.copy.PrintHashes(digests, target_options.path, part,
                               target_options.path == "-" ? stderr : stdout);
  }
  return 0;
}

void MayWriteTo(CommandSandbox& sandbox, const std::string& path) {
  if (path.empty() || path == "-") return;
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) {
    sandbox.MayWrite(path);
  } else {
    sandbox.MayMake(path);
  }
}

}  // namespace

int RunExportCommand(const std::vector<std::string>& words) {
  ExportArguments arguments;
  po::options_description options;
  arguments.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return 0;
  const std::string& path = (*operands)[1];

  OpenOptions open_options = arguments.open.ToOpenOptions();
  open_options.image = (*operands)[0];
  const WantedPart wanted = ParsePart(arguments);
  arguments.copy.Threads();
  const std::vector<std::string> hash_names = arguments.copy.HashNames();
  const ExportTargetOptions target_options = {
      .path = path,
      .overwrite = arguments.force,
      .sparse = arguments.copy.sparse()};
  ExportTargetOptions list_options = target_options;
  list_options.path = arguments.list;
  // Before anybody has to type a passphrase.
  CheckExportTarget(target_options);
  if (!arguments.list.empty()) {
    if (!arguments.unallocated) {
      throw UsageError("--list makes no sense without --unallocated");
    }
    if (arguments.list == path) {
      throw UsageError("--list and FILE are the same: " + path);
    }
    CheckExportTarget(list_options);
  }

  arguments.manifest.Check(arguments.force);
  MayWriteTo(arguments.sandbox, path);
  MayWriteTo(arguments.sandbox, arguments.list);
  arguments.sandbox.MayMake(arguments.manifest.file());
  arguments.sandbox.Enter();

  return RunForensically(arguments.open.forensic(), "export", words, [&] {
    return Export(open_options, wanted, target_options, list_options,
                  hash_names, arguments);
  });
}

}  // namespace pellucid::cli
