#include "tools/create_command.h"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <filesystem>
#include <utility>

#include "crypto/secret_bytes.h"
#include "engine/create_image.h"
#include "engine/errors.h"
#include "engine/printable.h"
#include "tools/byte_size.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/create_arguments.h"
#include "tools/info_json.h"
#include "tools/interrupt_watch.h"
#include "tools/preallocation.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;
namespace fs = std::filesystem;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid create [OPTION]... FILE [SIZE]",
    .description =
        "Makes FILE, an empty disk image whose plaintext has SIZE bytes (10G,\n"
        "512MiB, 1000000). Without options, it is a qcow2 image with a LUKS1\n"
        "header in it, which QEMU opens as well. SIZE may be left out with\n"
        "--backing and is with --payload-exists.",
    .operands = {"FILE", "SIZE"},
    .optional_operands = 1,
    .common_options = {"format", "encryption", "detached-header", "key-file",
                       "force"},
};

// --force is not meant for the passphrase.
void RefuseToOverwriteKey(const NewImage& wanted, const std::string& key_file) {
  for (const fs::path& made : {wanted.image, wanted.header}) {
    std::error_code ignored;
    if (fs::equivalent(made, key_file, ignored)) {
      throw UsageError(fmt::format("{}: is the key file; it is not overwritten",
                                   made.native()));
    }
  }
}

// "LUKS2 (aes-xts-plain64, 512-bit key)"
std::string FormatLuks(const luks::FormatOptions& luks) {
  return fmt::format("LUKS{} ({}-{}, {}-bit key)", luks.version, luks.cipher,
                     luks.mode, luks.key_bytes * 8);
}

std::string FormatResult(const ImageCreation& creation) {
  const NewImage& wanted = creation.wanted();
  if (wanted.payload_exists) {
    return fmt::format(
        "{}: detached header, {}, for {}; what is there now reads as noise "
        "until it is written anew",
        wanted.header.native(), FormatLuks(*wanted.luks),
        wanted.image.native());
  }
  std::string text =
      fmt::format("{}: {} image of {}, ", wanted.image.native(),
                  wanted.format == ContainerFormat::kQcow2 ? "qcow2" : "raw",
                  FormatExactByteSize(creation.size()));
  text += wanted.luks ? "encrypted with " + FormatLuks(*wanted.luks)
                      : "not encrypted";
  if (!wanted.header.empty()) text += ", header in " + wanted.header.native();
  return text;
}

std::string FormatResultAsJson(const NewImage& wanted) {
  OpenOptions options;
  options.image = wanted.image;
  options.header = wanted.header;
  if (!wanted.payload_exists) options.format = wanted.format;
  return FormatInfoAsJson(DescribeImage(options));
}

}  // namespace

int RunCreateCommand(const std::vector<std::string>& words) {
  CreateArguments arguments;
  bool quiet = false;
  bool json = false;
  CommandSandbox sandbox;
  po::options_description options;
  arguments.AddTo(options);
  options.add_options()("json", po::bool_switch(&json),
                        "print what `pellucid info --json` prints of it");
  AddQuietTo(options, &quiet);
  sandbox.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return 0;

  NewImage new_image = arguments.ToNewImage(
      operands->front(), operands->size() > 1 ? operands->back() : "");
  if (!new_image.payload_exists) sandbox.MayMake(new_image.image);
  sandbox.MayMake(new_image.header);
  sandbox.Enter();
  ImageCreation creation(std::move(new_image));
  const NewImage& wanted = creation.wanted();
  crypto::SecretBytes passphrase;
  if (wanted.luks) {
    RefuseToOverwriteKey(wanted, arguments.passphrase().key_file());
    passphrase = arguments.passphrase().Get(
        (wanted.payload_exists ? wanted.header : wanted.image).native());
  }
  try {
    const InterruptWatch interrupts;
    creation.Run(passphrase, InterruptWatch::Check);
    if (arguments.preallocates()) Preallocate(wanted, passphrase, quiet);
  } catch (const Interrupted& interrupted) {
    kill(getpid(), interrupted.signal);
    return static_cast<int>(ExitCode::kFailure);
  }
  if (json) {
    fmt::print("{}", FormatResultAsJson(wanted));
  } else if (!quiet) {
    fmt::print("{}\n", Printable(FormatResult(creation)));
  }
  return 0;
}

}  // namespace pellucid::cli
