#include "tools/header_arguments.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <span>
#include <string_view>

#include "engine/printable.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

constexpr std::array<std::string_view, 3> kPlace = {"header", "format",
                                                    "header-format"};
constexpr std::array<std::string_view, 3> kNamedFiles = {
    "data-file", "no-backing", "allow-path"};
constexpr std::array<std::string_view, 1> kSharing = {"force-share"};
constexpr std::array<std::string_view, 3> kForensic = {"forensic",
                                                       "evidence-hash", "log"};
constexpr std::array<std::string_view, 7> kPassphrases = {
    "key-file", "key-file-offset", "key-file-size", "passphrase-fd",
    "keyring",  "volume-key-file", "max-kdf-memory"};

void AddNamed(OpenArguments& arguments, std::span<const std::string_view> names,
              po::options_description& options) {
  po::options_description all;
  arguments.AddTo(all);
  for (const auto& option : all.options()) {
    if (std::ranges::find(names, option->long_name()) != names.end()) {
      options.add(option);
    }
  }
}

}  // namespace

void HeaderArguments::AddPlaceTo(po::options_description& options) {
  AddNamed(arguments_, kPlace, options);
}

void HeaderArguments::AddNamedFilesTo(po::options_description& options) {
  AddNamed(arguments_, kNamedFiles, options);
}

void HeaderArguments::AddSharingTo(po::options_description& options) {
  AddNamed(arguments_, kSharing, options);
}

void HeaderArguments::AddForensicTo(po::options_description& options) {
  AddNamed(arguments_, kForensic, options);
}

void HeaderArguments::AddPassphrasesTo(po::options_description& options) {
  AddNamed(arguments_, kPassphrases, options);
}

OpenOptions HeaderArguments::ToOpenOptions(const std::string& image) const {
  OpenOptions options = arguments_.ToOpenOptions();
  options.image = image;
  return options;
}

void WarnAboutHeader(const luks::LocatedHeader& located) {
  for (const std::string& warning : located.header.warnings) {
    fmt::print(stderr, "pellucid: warning: {}\n", Printable(warning));
  }
}

}  // namespace pellucid::cli
