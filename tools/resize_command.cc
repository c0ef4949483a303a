#include "tools/resize_command.h"

#include <fmt/core.h>

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>

#include "engine/errors.h"
#include "engine/printable.h"
#include "tools/byte_size.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/open_arguments.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid resize [OPTION]... IMAGE [+|-]SIZE",
    .description =
        "Makes the plaintext of IMAGE SIZE bytes long, or SIZE bytes longer "
        "(+)\n"
        "or shorter (-). What is added to a qcow2 image, or to a raw one, "
        "reads "
        "as\n"
        "zeros; in a LUKS volume it is noise. What is behind a smaller size "
        "is\n"
        "gone: the file system in the image has to be made smaller before, "
        "and\n"
        "--shrink says that this has been done.\n"
        "\n"
        "If it is interrupted, the image has its old size or the new one.",
    .operands = {"IMAGE", "SIZE"},
    .common_options = {"shrink", "key-file", "header"},
};

// Stands for the sign in front of a size that would be taken for options.
constexpr char kMinus = '~';

std::vector<std::string> WithMarkedSizes(std::vector<std::string> words) {
  for (std::string& word : words) {
    if (word == "--") break;
    if (word.size() > 1 && word[0] == '-' && word[1] >= '0' && word[1] <= '9') {
      word[0] = kMinus;
    }
  }
  return words;
}

}  // namespace

NewSize ParseNewSize(const std::string& text) {
  NewSize size;
  std::string number = text;
  if (text.starts_with('+')) size.kind = NewSize::Kind::kMore;
  if (text.starts_with('-')) size.kind = NewSize::Kind::kLess;
  if (size.kind != NewSize::Kind::kExactly) number.erase(0, 1);
  try {
    size.bytes = ParseByteSize("size", number);
  } catch (const UsageError&) {
    throw UsageError(fmt::format(
        "SIZE is a number of bytes such as 4096, 64K or 10GiB, or +1G or -1G "
        "for a change, not '{}'",
        text));
  }
  return size;
}

int RunResizeCommand(const std::vector<std::string>& words) {
  OpenArguments open;
  bool shrink = false;
  bool quiet = false;
  CommandSandbox sandbox;
  po::options_description options;
  options.add_options()  //
      ("shrink", po::bool_switch(&shrink),
       "allow a smaller size, which destroys what is behind it");
  AddQuietTo(options, &quiet);
  open.AddTo(options);
  sandbox.AddTo(options);
  const auto operands =
      ParseCommandLine(kSyntax, options, WithMarkedSizes(words));
  if (!operands) return 0;
  OpenOptions open_options = open.ToOpenOptions();
  open_options.image = (*operands)[0];
  std::string text = (*operands)[1];
  if (text.starts_with(kMinus)) text[0] = '-';
  sandbox.MayWriteImage(open_options);
  sandbox.Enter();
  CheckExpectedHeader(open_options);
  NewSize size = ParseNewSize(text);
  size.may_shrink = shrink;
  open.forensic().RefuseWriting("a resize");
  if (open.read_only()) {
    throw UsageError("the size of an image cannot be changed --read-only");
  }
  const SizeChange change =
      ResizeImage(open_options, size, *open.MakePassphraseSource(open_options));
  if (!quiet) {
    fmt::print(
        "{}: {} now, {} before\n", Printable(open_options.image.native()),
        FormatExactByteSize(change.after), FormatExactByteSize(change.before));
  }
  return 0;
}

}  // namespace pellucid::cli
