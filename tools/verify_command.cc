#include "tools/verify_command.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>
#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "engine/errors.h"
#include "engine/file_device.h"
#include "engine/open_image.h"
#include "engine/printable.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/copy_arguments.h"
#include "tools/forensic_run.h"
#include "tools/manifest_check.h"
#include "tools/manifest_reader.h"
#include "tools/open_arguments.h"
#include "tools/progress_bar.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid verify [OPTION]... MANIFEST COPY",
    .description =
        "Compares COPY, a plain file (also one that pellucid has mounted) or "
        "a\n"
        "block device, with MANIFEST, which `pellucid export --manifest` "
        "wrote.\n"
        "With --image, COPY is an image, opened and decrypted as `mount` does\n"
        "it. Names the first range that differs.\n"
        "\n"
        "Exit code: 0 all is as the manifest says, 1 the comparison could not "
        "be\n"
        "completed, 2 something differs. (This is not the list of the other\n"
        "subcommands but that of `check`.)",
    .operands = {"MANIFEST", "COPY"},
    .common_options = {"image", "all", "json", "quiet", "key-file", "header"},
};

enum : int { kSame = 0, kDiffers = 2 };

struct VerifyArguments {
  CommandSandbox sandbox;
  OpenArguments open;
  bool image = false;
  bool all = false;
  bool json = false;
  bool quiet = false;
  std::string threads;

  void AddTo(po::options_description& options);
};

void VerifyArguments::AddTo(po::options_description& options) {
  options.add_options()  //
      ("image", po::bool_switch(&image),
       "COPY is an image: compare its plaintext")                    //
      ("all", po::bool_switch(&all), "name all ranges that differ")  //
      ("json", po::bool_switch(&json), "print JSON for programs")    //
      ("threads", po::value(&threads)->value_name("N"),
       "default: one for each processor");
  AddQuietTo(options, &quiet);
  open.AddPartitionTo(options);
  open.AddTo(options);
  sandbox.AddTo(options);
}

// A range that is not as the manifest says. Offsets are those of the copy.
struct Difference {
  ByteRange range;
  std::string_view kind;  // "content", "missing" or "surplus".
};

// What is compared with the manifest.
struct Copy {
  std::unique_ptr<BlockDevice> device;
  uint64_t offset = 0;    // Where in it the described bytes begin.
  uint64_t expected = 0;  // Its size if it is what the manifest describes.
  bool may_be_longer = false;
};

Copy OpenCopy(const std::string& name, const ManifestHeader& header,
              const VerifyArguments& arguments) {
  Copy copy;
  if (!arguments.image) {
    if (arguments.open.names_image_parts()) {
      throw UsageError(
          "options that tell how to open or decrypt an image need --image");
    }
    auto file = FileDevice::Open(name, FileDevice::Sharing::kExclusive);
    copy.expected = header.size;
    // A disk that an image was written to is rarely as small as the image.
    copy.may_be_longer = S_ISBLK(file->host_stat().st_mode);
    copy.device = std::move(file);
    return copy;
  }
  OpenOptions options = arguments.open.ToOpenOptions();
  options.image = name;
  copy.device =
      OpenAndWarn(options, *arguments.open.MakePassphraseSource(options))
          .device;
  copy.offset = header.offset;
  copy.expected = header.image_size;
  return copy;
}

std::vector<Difference> FindDifferences(ManifestReader& manifest,
                                        const Copy& copy,
                                        const VerifyArguments& arguments) {
  const ManifestHeader& header = manifest.header();
  ProgressBar bar(header.size, arguments.quiet);
  ManifestCheck check(manifest, *copy.device, copy.offset, arguments.all);
  std::vector<Difference> differences;
  for (const ByteRange& range :
       check.Run(ParseThreads(arguments.threads),
                 [&](Progress progress) { bar.Show(progress); })) {
    differences.push_back({.range = {.offset = copy.offset + range.offset,
                                     .length = range.length},
                           .kind = "content"});
  }
  const uint64_t size = copy.device->size();
  if (size < copy.expected) {
    differences.push_back(
        {.range = {.offset = size, .length = copy.expected - size},
         .kind = "missing"});
  } else if (size > copy.expected && !copy.may_be_longer) {
    differences.push_back(
        {.range = {.offset = copy.expected, .length = size - copy.expected},
         .kind = "surplus"});
  }
  if (!arguments.all && differences.size() > 1) differences.resize(1);
  return differences;
}

std::string FormatText(const std::string& name, const ManifestReader& manifest,
                       const Copy& copy,
                       const std::vector<Difference>& differences) {
  std::string text;
  for (const Difference& difference : differences) {
    const ByteRange range = difference.range;
    text += fmt::format("{}: ", Printable(name));
    if (difference.kind == "missing") {
      text += fmt::format("ends at byte {}, {} bytes too early\n", range.offset,
                          range.length);
    } else if (difference.kind == "surplus") {
      text += fmt::format("does not end at byte {} but {} bytes later\n",
                          range.offset, range.length);
    } else {
      text += fmt::format("the {} bytes from byte {} on differ\n", range.length,
                          range.offset);
    }
  }
  if (differences.empty()) {
    text = fmt::format("{}: all {} bytes are as the manifest says\n",
                       Printable(name), manifest.header().size);
    if (copy.device->size() > copy.expected) {
      text += fmt::format("{}: its {} bytes behind these were not compared\n",
                          Printable(name), copy.device->size() - copy.expected);
    }
  }
  return text;
}

std::string FormatJson(const std::string& manifest_name,
                       const std::string& name, const ManifestReader& manifest,
                       const Copy& copy,
                       const std::vector<Difference>& differences) {
  using Json = nlohmann::ordered_json;
  Json object;
  object["manifest"] = manifest_name;
  object["file"] = name;
  object["size"] = copy.device->size();
  object["expected_size"] = copy.expected;
  object["compared_bytes"] = manifest.header().size;
  object["same"] = differences.empty();
  object["differences"] = Json::array();
  for (const Difference& difference : differences) {
    object["differences"].push_back({{"offset", difference.range.offset},
                                     {"length", difference.range.length},
                                     {"kind", difference.kind}});
  }
  return object.dump(2, ' ', true, Json::error_handler_t::replace) + "\n";
}

int Run(const std::vector<std::string>& words) {
  VerifyArguments arguments;
  po::options_description options;
  arguments.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return kSame;
  ParseThreads(arguments.threads);
  const std::string& name = (*operands)[1];
  arguments.sandbox.Enter();
  return RunForensically(arguments.open.forensic(), "verify", words, [&] {
    ManifestReader manifest((*operands)[0]);
    const Copy copy = OpenCopy(name, manifest.header(), arguments);
    const std::vector<Difference> differences =
        FindDifferences(manifest, copy, arguments);
    if (!arguments.quiet) {
      fmt::print("{}", arguments.json
                           ? FormatJson((*operands)[0], name, manifest, copy,
                                        differences)
                           : FormatText(name, manifest, copy, differences));
    }
    return differences.empty() ? kSame : kDiffers;
  });
}

}  // namespace

// 2 tells of the copy here, so no error may have it.
int RunVerifyCommand(const std::vector<std::string>& words) {
  return RunWithOneFailureCode("verify", [&] { return Run(words); });
}

}  // namespace pellucid::cli
