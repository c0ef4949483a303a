#include "tools/export_command.h"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <cstdio>
#include <memory>
#include <optional>

#include "crypto/hash.h"
#include "engine/errors.h"
#include "engine/open_image.h"
#include "tools/byte_size.h"
#include "tools/command_line.h"
#include "tools/copy_arguments.h"
#include "tools/export_target.h"
#include "tools/interrupt_watch.h"
#include "tools/open_arguments.h"
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
        "store, and longer runs of zeros, become holes in FILE.",
    .operands = {"IMAGE", "FILE"},
    .common_options = {"hash", "offset", "length", "force", "key-file",
                       "header"},
};

struct ExportArguments {
  OpenArguments open;
  CopyArguments copy;
  std::string length;
  bool force = false;

  void AddTo(po::options_description& options);
};

void ExportArguments::AddTo(po::options_description& options) {
  copy.AddTo(options, "begin at byte N; suffixes K, M, G, T",
             "print a hash of the copied bytes (sha256, ...) on standard "
             "output; on standard error if the data goes to standard output",
             "write zeros instead of holes");
  options.add_options()  //
      ("length", po::value(&length)->value_name("N"),
       "copy N bytes, not all up to the end")  //
      ("force", po::bool_switch(&force),
       "overwrite an existing FILE, or a block device");
  open.AddTo(options);
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
          crypto::Hasher* hasher, const ExportArguments& arguments) {
  // A stream is left at once: nothing is there to clean up, and its reader may
  // be stuck.
  std::optional<InterruptWatch> interrupts;
  if (!target.is_stream()) interrupts.emplace();
  ProgressBar bar(part.length, arguments.copy.quiet());
  PlaintextCopy copy(image, part, target, 0, hasher);
  copy.Run(arguments.copy.Threads(), [&](Progress progress) {
    if (interrupts) InterruptWatch::Check();
    bar.Show(progress);
  });
  if (interrupts) InterruptWatch::Check();
  target.Finish();
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
  const std::unique_ptr<crypto::Hasher> hasher = arguments.copy.MakeHasher();
  const ExportTargetOptions target_options = {
      .path = path,
      .overwrite = arguments.force,
      .sparse = arguments.copy.sparse()};
  // Before anybody has to type a passphrase.
  CheckExportTarget(target_options);

  const OpenedImage image = OpenAndWarn(
      open_options, *arguments.open.MakePassphraseSource(open_options));
  const ByteRange part = PartOf(image.device->size(), wanted);
  ExportTarget target(target_options, part.length, image.files);
  try {
    Copy(*image.device, part, target, hasher.get(), arguments);
  } catch (const Interrupted& interrupted) {
    target.Discard();
    kill(getpid(), interrupted.signal);
    return static_cast<int>(ExitCode::kFailure);
  } catch (...) {
    target.Discard();
    throw;
  }
  if (hasher) PrintHash(*hasher, path, path == "-" ? stderr : stdout);
  return 0;
}

}  // namespace pellucid::cli
