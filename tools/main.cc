// The `pellucid` program: picks the subcommand and turns errors into exit
// codes.

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <boost/program_options/errors.hpp>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "engine/errors.h"
#include "engine/io_error.h"
#include "engine/printable.h"
#include "tools/check_command.h"
#include "tools/completion.h"
#include "tools/create_command.h"
#include "tools/export_command.h"
#include "tools/file_descriptor.h"
#include "tools/header_command.h"
#include "tools/import_command.h"
#include "tools/info_command.h"
#include "tools/key_command.h"
#include "tools/map_command.h"
#include "tools/mistyped_word.h"
#include "tools/mount_command.h"
#include "tools/mount_helper.h"
#include "tools/report_command.h"
#include "tools/resize_command.h"
#include "tools/snapshot_command.h"
#include "tools/umount_command.h"
#include "tools/verify_command.h"

namespace pellucid::cli {
namespace {

struct Subcommand {
  std::string_view name;
  std::string_view summary;
  int (*run)(const std::vector<std::string>& arguments);
};

constexpr std::array kSubcommands = {
    Subcommand{"mount", "show the plaintext of an image as a file",
               RunMountCommand},
    Subcommand{"umount", "end a mount", RunUmountCommand},
    Subcommand{"info", "print what the metadata of an image says",
               RunInfoCommand},
    Subcommand{"map", "show where the parts of an image are stored",
               RunMapCommand},
    Subcommand{"check", "look for damage in an image, and repair it",
               RunCheckCommand},
    Subcommand{"export", "copy the plaintext to a file or a pipe",
               RunExportCommand},
    Subcommand{"verify", "compare a copy with a manifest of hashes",
               RunVerifyCommand},
    Subcommand{"report", "describe an image and its contents, as evidence",
               RunReportCommand},
    Subcommand{"import", "copy plaintext from a file or a pipe into an image",
               RunImportCommand},
    Subcommand{"create", "make a new image or detached header",
               RunCreateCommand},
    Subcommand{"resize", "make an image larger or smaller", RunResizeCommand},
    Subcommand{"snapshot", "list, create, delete and apply internal snapshots",
               RunSnapshotCommand},
    Subcommand{"key", "list, add, remove and change passphrases",
               RunKeyCommand},
    Subcommand{"header", "back up, restore, detach and repair LUKS headers",
               RunHeaderCommand},
};

void PrintHelp() {
  fmt::print(
      "Usage: pellucid SUBCOMMAND [OPTION]... ARGUMENT...\n\n"
      "Shows the plaintext of an encrypted disk image as an ordinary file.\n\n"
      "Subcommands:\n");
  for (const Subcommand& subcommand : kSubcommands) {
    fmt::print("  {:<10}{}\n", subcommand.name, subcommand.summary);
  }
  fmt::print(
      "\nOptions:\n"
      "  -h, --help    print this help and exit; `pellucid SUBCOMMAND --help`\n"
      "                tells the options of one subcommand\n"
      "  --version     print the version and exit\n");
}

// `words` are those behind the program's name, the last as far as it is typed.
int PrintCompletions(const std::vector<std::string>& words) {
  if (words.size() > 1) {
    for (const Subcommand& subcommand : kSubcommands) {
      if (subcommand.name != words[0]) continue;
      std::vector<std::string> arguments = words;
      arguments[0] = kCompletionWord;
      return subcommand.run(arguments);
    }
  } else if (words.size() == 1) {
    for (const Subcommand& subcommand : kSubcommands) {
      fmt::print("{}", FormatCompletion(subcommand.name, subcommand.summary,
                                        words[0]));
    }
    for (const char* option : {"--help", "--version"}) {
      if (words[0].starts_with('-')) {
        fmt::print("{}", FormatCompletion(option, "", words[0]));
      }
    }
  }
  return 0;
}

[[noreturn]] void ThrowUnknownSubcommand(const std::string& word) {
  std::vector<std::string_view> names;
  names.reserve(std::size(kSubcommands));
  for (const Subcommand& subcommand : kSubcommands) {
    names.push_back(subcommand.name);
  }
  const std::string_view nearest = NearestWord(word, names);
  throw boost::program_options::error(fmt::format(
      "there is no subcommand '{}'{}", word,
      nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest)));
}

int RunSubcommand(const std::vector<std::string>& words) {
  if (words.empty())
    throw boost::program_options::error("a subcommand is missing");
  if (words[0] == "-h" || words[0] == "--help") {
    PrintHelp();
    return 0;
  }
  if (words[0] == "--version") {
    fmt::print("pellucid {}\n", PELLUCID_VERSION);
    return 0;
  }
  if (words[0] == kCompletionWord) {
    return PrintCompletions({words.begin() + 1, words.end()});
  }
  for (const Subcommand& subcommand : kSubcommands) {
    if (subcommand.name == words[0]) {
      return subcommand.run({words.begin() + 1, words.end()});
    }
  }
  ThrowUnknownSubcommand(words[0]);
}

// Files opened later must not land on 0, 1 or 2, where messages would be
// written into them.
void OccupyStandardStreams() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) == -1) open("/dev/null", O_RDWR);
  }
}

// Keys stay out of core dumps and away from debuggers of the same user.
void ProtectMemory() {
  // LeakSanitizer cannot look into a process that is not dumpable.
#ifndef PELLUCID_SANITIZED
  const rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  prctl(PR_SET_DUMPABLE, 0);
#endif
}

void FlushOutput() {
  if (std::fflush(stdout) != 0) ThrowIoError(errno, "standard output");
}

int Report(ExitCode exit_code, std::string_view text) {
  fmt::print(stderr, "pellucid: {}\n", Printable(text));
  return static_cast<int>(exit_code);
}

// The remedy that the program as a whole knows: where the options are listed.
std::string WithHelpHint(std::string_view text,
                         const std::vector<std::string>& words) {
  for (const Subcommand& subcommand : kSubcommands) {
    if (!words.empty() && words[0] == subcommand.name) {
      return fmt::format("{} (see `pellucid {} --help`)", text,
                         subcommand.name);
    }
  }
  return fmt::format("{} (see `pellucid --help`)", text);
}

// `called_as` is the name of the program without folders.
int Run(std::string_view called_as, const std::vector<std::string>& words) {
  try {
    const int exit_code = called_as == kMountHelperName ? RunMountHelper(words)
                                                        : RunSubcommand(words);
    FlushOutput();
    return exit_code;
  } catch (const Error& error) {
    return Report(error.exit_code(), error.what());
  } catch (const boost::program_options::error& error) {
    return Report(ExitCode::kUsage, WithHelpHint(error.what(), words));
  } catch (const std::system_error& error) {
    return Report(ExitCode::kIoError, error.what());
  } catch (const std::bad_alloc&) {
    return Report(ExitCode::kFailure, "out of memory");
  } catch (const std::exception& error) {
    return Report(ExitCode::kFailure, error.what());
  }
}

}  // namespace
}  // namespace pellucid::cli

int main(int argc, char** argv) {
  pellucid::cli::OccupyStandardStreams();
  pellucid::cli::ProtectMemory();
  // A limit on file sizes is an error to report, not one to die of.
  (void)signal(SIGXFSZ, SIG_IGN);
  std::string_view called_as = argc > 0 ? argv[0] : "";
  called_as.remove_prefix(called_as.rfind('/') + 1);
  return pellucid::cli::Run(called_as,
                            {argv + (argc > 0 ? 1 : 0), argv + argc});
}
