#include "tools/check_command.h"

#include <fmt/core.h>

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <optional>

#include "engine/check_image.h"
#include "engine/errors.h"
#include "engine/printable.h"
#include "tools/check_report.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/forensic_run.h"
#include "tools/header_arguments.h"
#include "tools/progress_bar.h"
#include "tools/terminal_window.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid check [OPTION]... IMAGE",
    .description =
        "Looks for damage: in the tables of a qcow2 image, as `qemu-img "
        "check`\n"
        "does, and in the LUKS header, wherever that is. Asks for no "
        "passphrase,\n"
        "and changes nothing without --repair. Backing files are not checked.\n"
        "\n"
        "  --repair leaks  gives clusters back that nothing refers to\n"
        "  --repair all    also makes refcounts and copied flags anew, and "
        "the\n"
        "                  two copies of a LUKS2 header alike\n"
        "\n"
        "No repair changes a byte of the disk's content. If one is "
        "interrupted,\n"
        "the image is as it was or repaired.\n"
        "\n"
        "Exit code: 0 no damage, 1 the check could not be completed, 2 "
        "damage,\n"
        "3 only leaks, 63 neither qcow2 nor LUKS. (This is not the list of "
        "the\n"
        "other subcommands but that of `qemu-img check`.)",
    .operands = {"IMAGE"},
    .common_options = {"repair", "json", "header", "quiet"},
};

enum : int { kClean = 0, kDamaged = 2, kLeaksOnly = 3, kNothingToCheck = 63 };

Repair ParseRepair(const std::string& value) {
  if (value.empty()) return Repair::kNone;
  if (value == "leaks") return Repair::kLeaks;
  if (value == "all") return Repair::kAll;
  throw UsageError(fmt::format("--repair takes leaks or all, not '{}'", value));
}

int ExitCodeOf(const CheckReport& report) {
  if (!report.clusters && !report.has_luks_header) return kNothingToCheck;
  const Findings& findings = report.findings;
  if (findings.count(Severity::kCorruption) != 0 ||
      findings.count(Severity::kHazard) != 0) {
    return kDamaged;
  }
  return findings.count(Severity::kLeak) != 0 ? kLeaksOnly : kClean;
}

CheckReport CheckWithProgress(const OpenOptions& open, Repair repair,
                              bool quiet) {
  std::optional<ProgressBar> bar;  // A new one for each look at the tables.
  uint64_t last = 0;
  return CheckImage(open, repair, [&](uint64_t done, uint64_t total) {
    if (!bar || done < last) bar.emplace(total, quiet);
    last = done;
    bar->Show({.position = done, .copied = done});
  });
}

int Run(const std::vector<std::string>& words) {
  HeaderArguments arguments;
  std::string repair_word;
  bool json = false;
  bool quiet = false;
  CommandSandbox sandbox;
  po::options_description options;
  options.add_options()  //
      ("repair", po::value(&repair_word)->value_name("leaks|all"),
       "put right what can be put right; the image must not be in use")  //
      ("json", po::bool_switch(&json), "print JSON for programs");
  AddQuietTo(options, &quiet);
  arguments.AddPlaceTo(options);
  arguments.AddNamedFilesTo(options);
  arguments.AddSharingTo(options);
  arguments.AddForensicTo(options);
  sandbox.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return kClean;
  const OpenOptions open = arguments.ToOpenOptions((*operands)[0]);
  const Repair repair = ParseRepair(repair_word);
  if (repair != Repair::kNone && open.force_share) {
    throw UsageError("--force-share is for checks without --repair");
  }
  if (repair != Repair::kNone) arguments.forensic().RefuseWriting("a repair");
  if (repair != Repair::kNone) sandbox.MayWriteImage(open);
  sandbox.Enter();
  return RunForensically(arguments.forensic(), "check", words, [&] {
    const CheckReport report = CheckWithProgress(open, repair, quiet);
    const int exit_code = ExitCodeOf(report);
    if (exit_code == kNothingToCheck) {
      fmt::print(stderr,
                 "pellucid: {}: is neither qcow2 nor a LUKS volume; there is "
                 "nothing to check (a detached header is named by --header)\n",
                 Printable(open.image.native()));
    } else if (json) {
      fmt::print("{}", FormatCheckAsJson(open.image, report));
    } else if (!quiet) {
      fmt::print("{}",
                 ForStandardOutput(FormatCheckAsText(open.image, report)));
    }
    return exit_code;
  });
}

}  // namespace

// 2 and 3 tell of the image here, so no error may have them.
int RunCheckCommand(const std::vector<std::string>& words) {
  return RunWithOneFailureCode("check", [&] { return Run(words); });
}

}  // namespace pellucid::cli
