#include "tools/open_arguments.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/program_options/value_semantic.hpp>
#include <charconv>
#include <string_view>

#include "engine/errors.h"
#include "tools/key_files.h"
#include "tools/terminal_prompt.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

ContainerFormat ParseFormat(std::string_view option, std::string_view value) {
  if (value == "auto") return ContainerFormat::kAuto;
  if (value == "raw") return ContainerFormat::kRaw;
  if (value == "qcow2") return ContainerFormat::kQcow2;
  throw UsageError(
      fmt::format("--{} takes auto, qcow2 or raw, not '{}'", option, value));
}

Encryption ParseEncryption(std::string_view value) {
  if (value == "auto") return Encryption::kAuto;
  if (value == "none") return Encryption::kNone;
  throw UsageError(
      fmt::format("--encryption takes auto or none, not '{}'", value));
}

unsigned ParseKeyslot(std::string_view value) {
  unsigned keyslot = 0;
  const char* end = value.data() + value.size();
  const auto [parsed_to, error] =
      std::from_chars(value.data(), end, keyslot, 10);
  if (error != std::errc() || parsed_to != end) {
    throw UsageError(fmt::format("--keyslot takes a number, not '{}'", value));
  }
  return keyslot;
}

}  // namespace

void OpenArguments::AddTo(po::options_description& options) {
  const auto text = [](std::string* value, const char* name) {
    return po::value(value)->value_name(name);
  };
  const auto choice = [](std::string* value, const char* names) {
    return po::value(value)->value_name(names)->default_value("auto");
  };
  options.add_options()  //
      ("header", text(&header_, "FILE"),
       "detached LUKS header, or a header backup")  //
      ("format", choice(&format_, "auto|qcow2|raw"),
       "container of the image; LUKS inside it is found by itself")  //
      ("header-format", choice(&header_format_, "auto|qcow2|raw"),
       "container of the header file")  //
      ("encryption", choice(&encryption_, "auto|none"),
       "none shows the ciphertext")  //
      ("snapshot", text(&snapshot_, "NAME"),
       "show this internal snapshot (name or id)")  //
      ("key-file", po::value(&key_files_)->value_name("FILE"),
       "read a passphrase from FILE, all of it, or from standard input (-); "
       "may be repeated, each encrypted layer tries them in turn")  //
      ("keyslot", text(&keyslot_, "N"), "try only this keyslot")    //
      ("no-backing", po::bool_switch(&no_backing_),
       "open no file that the image names: no backing or data file")  //
      ("force-share", po::bool_switch(&force_share_),
       "read although another program may be writing")  //
      ("read-only", po::bool_switch(&read_only_),
       "change nothing; always so in this version");
}

OpenOptions OpenArguments::ToOpenOptions() const {
  OpenOptions options;
  options.header = header_;
  options.format = ParseFormat("format", format_);
  options.header_format = ParseFormat("header-format", header_format_);
  options.encryption = ParseEncryption(encryption_);
  options.snapshot = snapshot_;
  if (!keyslot_.empty()) options.keyslot = ParseKeyslot(keyslot_);
  options.allow_backing = !no_backing_;
  options.force_share = force_share_;
  return options;
}

std::unique_ptr<PassphraseSource> OpenArguments::MakePassphraseSource() const {
  if (key_files_.empty()) return std::make_unique<TerminalPrompt>();
  if (std::count(key_files_.begin(), key_files_.end(), "-") > 1) {
    throw UsageError("--key-file - can be given once only");
  }
  return std::make_unique<KeyFiles>(key_files_);
}

}  // namespace pellucid::cli
