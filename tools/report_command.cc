#include "tools/report_command.h"

#include <fmt/core.h>

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <ctime>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "engine/errors.h"
#include "engine/image_map.h"
#include "engine/new_file.h"
#include "engine/plaintext_remains.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/copy_arguments.h"
#include "tools/evidence_files.h"
#include "tools/file_listing.h"
#include "tools/forensic_run.h"
#include "tools/info_json.h"
#include "tools/open_arguments.h"
#include "tools/report_facts.h"
#include "tools/report_html.h"
#include "tools/utc_date.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;
using Json = nlohmann::ordered_json;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid report [OPTION]... IMAGE",
    .description =
        "Describes IMAGE: container, encryption, snapshots, partitions and "
        "file\n"
        "systems, which parts are stored, what the plaintext looks like, what\n"
        "leaks, and hashes; as JSON (--json), or as a page for a browser\n"
        "(--output), or both. Lists all files, deleted ones as well "
        "(--files).\n"
        "Changes nothing in IMAGE.",
    .operands = {"IMAGE"},
    .common_options = {"json", "output", "files", "hash", "quick", "no-unlock",
                       "forensic", "key-file", "header"},
};

struct ReportArguments {
  CommandSandbox sandbox;
  OpenArguments open;
  bool json = false;
  std::string output;
  std::string files;
  bool force = false;
  std::string hash;
  bool quick = false;
  bool no_unlock = false;
  std::string threads;
  bool quiet = false;

  void AddTo(po::options_description& options);
};

void ReportArguments::AddTo(po::options_description& options) {
  options.add_options()                                            //
      ("json", po::bool_switch(&json), "print JSON for programs")  //
      ("output", po::value(&output)->value_name("FILE"),
       "write an HTML page to FILE, which needs no network and no script")  //
      ("files", po::value(&files)->value_name("FILE"),
       "list all files, deleted ones as well, in FILE, a body file as mactime "
       "reads it; by itself, look at nothing else")                     //
      ("force", po::bool_switch(&force), "overwrite an existing FILE")  //
      ("hash", po::value(&hash)->value_name("NAME,..."),
       "hash the plaintext and every file that was read (md5, sha1, sha256, "
       "blake2b, ...); takes time for zeros, too")  //
      ("quick", po::bool_switch(&quick),
       "do not read the plaintext, nor clusters that nothing refers to")  //
      ("no-unlock", po::bool_switch(&no_unlock),
       "ask for no passphrase and report what can be seen without one")  //
      ("threads", po::value(&threads)->value_name("N"),
       "default: one for each processor");
  AddQuietTo(options, &quiet);
  open.AddTo(options);
  sandbox.AddTo(options);
}

ReportDepth DepthOf(const ReportArguments& arguments) {
  ReportDepth depth;
  depth.unlock = !arguments.no_unlock;
  // Nobody would see what else is found.
  const bool has_reader = arguments.json || !arguments.output.empty();
  depth.read_everything = has_reader && !arguments.quick;
  if (!arguments.hash.empty()) {
    depth.hash_names = ParseHashNames("hash", arguments.hash);
  }
  depth.threads = ParseThreads(arguments.threads);
  depth.quiet = arguments.quiet;
  return depth;
}

std::string Now() {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  return FormatUtcDate(now.tv_sec, static_cast<uint32_t>(now.tv_nsec));
}

// As a shell takes it.
std::string CommandLine(const std::vector<std::string>& words) {
  std::string line = "pellucid report";
  for (const std::string& word : words) {
    constexpr const char* kHarmless =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        "-_./,:=@%+";
    line += ' ';
    if (!word.empty() &&
        word.find_first_not_of(kHarmless) == std::string::npos) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) {
      if (c == '\'') {
        line += "'\\''";
      } else {
        line += c;
      }
    }
    line += '\'';
  }
  return line;
}

// The report while it is made.
// NOLINTNEXTLINE(bugprone-exception-escape): moving JSON throws nothing
struct Draft {
  Json json;
  int exit_code = 0;  // Of the first part that failed.

  void AddWarning(const std::string& warning) {
    Warn(warning);
    json["warnings"].push_back(warning);
  }

  // What is damaged keeps nobody from reading about the rest.
  void AddPart(const char* part, const std::function<Json()>& facts) {
    try {
      json[part] = facts();
    } catch (const Error& error) {
      AddError(part, error.what(), error.exit_code());
    }
  }

  void AddError(const char* part, const std::string& error, ExitCode code) {
    Warn(error);
    json["errors"].push_back({{"part", part}, {"error", error}});
    if (exit_code == 0) exit_code = static_cast<int>(code);
  }
};

void AddFileListing(Draft& draft, FileListing& listing, BlockDevice& disk) {
  constexpr const char* kPart = "file_listing";
  draft.AddPart(kPart, [&] { return listing.WriteFor(disk); });
  for (const FileListing::Gap& gap : listing.gaps()) {
    if (gap.exit_code == ExitCode::kOk) {
      draft.AddWarning(gap.text);
    } else {
      draft.AddError(kPart, gap.text, gap.exit_code);
    }
  }
}

// What needs the key.
// The pass over the plaintext is that over the ciphertext, which `seen` judges.
void AddUnlockedParts(Draft& draft, OpenOptions options,
                      const ReportArguments& arguments,
                      const ReportDepth& depth, FileListing* listing,
                      RemainsCollector& seen) {
  bool reads_everything = false;
  options.ciphertext_watch = [&](uint64_t offset,
                                 std::span<const std::byte> sectors) {
    if (!reads_everything) return;
    seen.Note(offset, sectors, PlaintextRemains::Place::kPayload);
  };
  const auto passphrases = arguments.open.MakePassphraseSource(options);
  OpenedImage image = OpenImage(options, *passphrases);
  for (const std::string& warning : image.warnings) draft.AddWarning(warning);
  draft.AddPart("disk", [&] { return DiskFacts(*image.device); });
  draft.AddPart("snapshot_disks", [&] { return SnapshotDiskFacts(image); });
  if (listing != nullptr) AddFileListing(draft, *listing, *image.device);
  if (!depth.read_everything) return;
  reads_everything = true;
  draft.AddPart("plaintext",
                [&] { return PlaintextFacts(*image.device, depth); });
}

// `words` are those of the command line, behind the subcommand.
Draft MakeReport(const OpenOptions& options, const ReportArguments& arguments,
                 const std::vector<std::string>& words,
                 const ReportDepth& depth, FileListing* listing) {
  Draft draft;
  draft.json = {{"report",
                 {{"program", "pellucid"},
                  {"version", PELLUCID_VERSION},
                  {"command", CommandLine(words)},
                  {"began", Now()},
                  {"ended", nullptr},
                  {"unlocked", depth.unlock},
                  {"read_everything", depth.read_everything}}},
                {"image", nullptr},
                {"leaks", nullptr},
                {"disk", nullptr},
                {"snapshot_disks", Json::array()},
                {"file_listing", nullptr},
                {"allocation", nullptr},
                {"plaintext", nullptr},
                {"files", nullptr},
                {"warnings", Json::array()},
                {"errors", Json::array()}};
  const EvidenceFiles evidence;
  const ImageInfo info = DescribeImage(options);
  draft.json["image"] = Json::parse(FormatInfoAsJson(info));
  evidence.CheckIsNone(arguments.output);
  evidence.CheckIsNone(arguments.files);
  RemainsCollector seen;
  if (depth.unlock) {
    AddUnlockedParts(draft, options, arguments, depth, listing, seen);
  }
  draft.AddPart("allocation", [&] {
    ImageMap map(options);
    // Otherwise they were told when it was unlocked.
    for (const std::string& warning : map.warnings()) {
      if (!depth.unlock) draft.AddWarning(warning);
    }
    return AllocationFacts(map);
  });
  draft.AddPart("leaks", [&] { return LeakFacts(options, info, depth, seen); });
  draft.AddPart("files",
                [&] { return FileFacts(evidence.files(), options, depth); });
  draft.json["report"]["ended"] = Now();
  return draft;
}

// Before anybody has to type a passphrase and to wait.
void CheckTargets(const ReportArguments& arguments) {
  if (!arguments.json && arguments.output.empty() && arguments.files.empty()) {
    throw UsageError(
        "where does the report go? Say --json, --output FILE, --files FILE, or "
        "several of them");
  }
  if (arguments.no_unlock && !arguments.files.empty()) {
    throw UsageError(
        "--files needs the plaintext, which --no-unlock leaves locked");
  }
  if (!arguments.files.empty() && arguments.files == arguments.output) {
    throw UsageError(fmt::format(
        "{}: cannot be the page of --output and the list of --files at once",
        arguments.files));
  }
  for (const std::string& file : {arguments.output, arguments.files}) {
    if (!arguments.force && !file.empty() && std::filesystem::exists(file)) {
      throw UsageError(
          fmt::format("{}: exists already; --force overwrites it", file));
    }
  }
}

void WritePage(const Json& report, const ReportArguments& arguments) {
  const std::string page = FormatReportAsHtml(report);
  NewFile file(arguments.output, arguments.force);
  file.device().Write(0, std::as_bytes(std::span(page)));
  file.Keep();
}

}  // namespace

int RunReportCommand(const std::vector<std::string>& words) {
  ReportArguments arguments;
  po::options_description options;
  arguments.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return 0;
  CheckTargets(arguments);
  const ReportDepth depth = DepthOf(arguments);
  OpenOptions open_options = arguments.open.ToOpenOptions();
  open_options.image = (*operands)[0];
  // A program of its own, which the sandbox would not let start.
  std::optional<FileListing> listing;
  if (!arguments.files.empty()) {
    listing.emplace(arguments.files, arguments.force);
    arguments.sandbox.MayTalkToChild();
  }
  arguments.sandbox.MayMake(arguments.output);
  arguments.sandbox.MayMake(arguments.files);
  arguments.sandbox.Enter();
  return RunForensically(arguments.open.forensic(), "report", words, [&] {
    const Draft draft = MakeReport(open_options, arguments, words, depth,
                                   listing ? &*listing : nullptr);
    if (!arguments.output.empty()) WritePage(draft.json, arguments);
    if (arguments.json) {
      constexpr bool kAsciiOnly = true;
      fmt::print("{}\n", draft.json.dump(2, ' ', kAsciiOnly,
                                         Json::error_handler_t::replace));
    }
    return draft.exit_code;
  });
}

}  // namespace pellucid::cli
