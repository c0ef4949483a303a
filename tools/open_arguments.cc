#include "tools/open_arguments.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <boost/program_options/value_semantic.hpp>
#include <cctype>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "engine/errors.h"
#include "engine/printable.h"
#include "tools/byte_size.h"
#include "tools/kernel_keyring.h"
#include "tools/key_files.h"
#include "tools/number_option.h"
#include "tools/terminal_prompt.h"
#include "tools/volume_key_file.h"

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

ExpectedHeader ParseExpectedHeader(const ExpectedHeader& expected) {
  const std::string& sha256 = expected.sha256;
  const auto is_digit = [](unsigned char c) { return std::isxdigit(c) != 0; };
  if (!sha256.empty() &&
      (sha256.size() != 64 || !std::ranges::all_of(sha256, is_digit))) {
    throw UsageError(
        "--expect-header-sha256 takes 64 hexadecimal digits, as sha256sum "
        "prints them");
  }
  return expected;
}

// What systemd's LoadCredential= or SetCredential= passes to a service.
std::optional<std::string> CredentialFile() {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing here changes the environment
  const char* folder = std::getenv("CREDENTIALS_DIRECTORY");
  if (folder == nullptr) return std::nullopt;
  std::string path = fmt::format("{}/pellucid.passphrase", folder);
  if (access(path.c_str(), F_OK) != 0) return std::nullopt;
  return path;
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
      ("data-file", text(&data_file_, "FILE"),
       "external data file, in place of the one that the image names; one that "
       "is not beside the image is written only if it is named here")  //
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
      ("key-file-offset", text(&key_file_offset_, "BYTES"),
       "skip that much of each key file")  //
      ("key-file-size", text(&key_file_size_, "BYTES"),
       "use only that much of each key file")  //
      ("backing-key-file", po::value(&backing_key_files_)->value_name("FILE"),
       "the same for backing images only; may be repeated")  //
      ("passphrase-fd", text(&passphrase_fd_, "N"),
       "read a passphrase from file descriptor N, up to the first newline")  //
      ("keyring", po::value(&keyring_)->value_name("DESCRIPTION"),
       "take a passphrase from the kernel keyring: the key of type user with "
       "this description; may be repeated")  //
      ("volume-key-file", text(&volume_key_file_, "FILE"),
       "use FILE as the volume key (master key) itself, without a keyslot")  //
      ("keyslot", text(&keyslot_, "N"), "try only this keyslot")             //
      ("expect-uuid", text(&expected_header_.uuid, "UUID"),
       "refuse a LUKS header with another UUID")  //
      ("expect-header-sha256", text(&expected_header_.sha256, "HEX"),
       "refuse a --header file with another SHA-256")  //
      ("max-kdf-memory", text(&max_kdf_memory_, "SIZE"),
       "try no keyslot whose key derivation takes more memory, which is as "
       "much "
       "as the header says; default: what the machine has, at most 4G")  //
      ("no-backing", po::bool_switch(&no_backing_),
       "open no file that the image names: no backing or data file")  //
      ("allow-path", po::value(&allowed_paths_)->value_name("PATH"),
       "open files that the image names only in this folder, or this very "
       "file; may be repeated; a device must be named itself")  //
      ("force-share", po::bool_switch(&force_share_),
       "read although another program may be writing")  //
      ("read-only", po::bool_switch(&read_only_),
       "open the image for reading only");
  forensic_.AddTo(options);
}

void OpenArguments::AddPartitionTo(po::options_description& options) {
  options.add_options()  //
      ("partition", po::value(&partition_)->value_name("N"),
       "only this partition of the disk, as Linux numbers them, decrypted if "
       "it "
       "is a LUKS volume");
}

OpenOptions OpenArguments::ToOpenOptions() const {
  OpenOptions options;
  options.header = header_;
  options.data_file = data_file_;
  options.format = ParseFormat("format", format_);
  options.header_format = ParseFormat("header-format", header_format_);
  options.encryption = ParseEncryption(encryption_);
  options.snapshot = snapshot_;
  if (!partition_.empty()) {
    options.partition = ParseNumber("partition", partition_);
  }
  if (!keyslot_.empty()) {
    options.keyslot = ParseNumber("keyslot", keyslot_, 0, kGreatestKeyslot);
  }
  options.expected_header = ParseExpectedHeader(expected_header_);
  if (!max_kdf_memory_.empty()) {
    options.max_kdf_memory = ParseByteSize("max-kdf-memory", max_kdf_memory_);
  }
  options.allow_backing = !no_backing_;
  options.allowed_paths.assign(allowed_paths_.begin(), allowed_paths_.end());
  options.force_share = force_share_;
  return options;
}

bool OpenArguments::names_image_parts() const {
  for (const std::string* text :
       {&header_, &data_file_, &snapshot_, &partition_, &expected_header_.uuid,
        &expected_header_.sha256, &passphrase_fd_, &volume_key_file_, &keyslot_,
        &max_kdf_memory_, &key_file_offset_, &key_file_size_}) {
    if (!text->empty()) return true;
  }
  for (const std::string* choice : {&format_, &header_format_, &encryption_}) {
    if (*choice != "auto") return true;
  }
  return !key_files_.empty() || !backing_key_files_.empty() ||
         !keyring_.empty() || no_backing_ || !allowed_paths_.empty();
}

bool OpenArguments::reads_standard_input() const {
  const auto names_it = [](const std::vector<std::string>& files) {
    return std::ranges::find(files, "-") != files.end();
  };
  return names_it(key_files_) || names_it(backing_key_files_) ||
         passphrase_fd_ == "0";
}

std::vector<OfferedSecret> OpenArguments::OfferedSecrets() const {
  const KeyFilePart part =
      ParseKeyFilePart("", key_file_offset_, key_file_size_);
  std::vector<OfferedSecret> secrets;
  if (!passphrase_fd_.empty()) {
    const auto fd = static_cast<int>(ParseNumber(
        "passphrase-fd", passphrase_fd_, 0, std::numeric_limits<int>::max()));
    secrets.push_back({.read = [fd] { return ReadPassphraseLine(fd); }});
  }
  for (const std::string& path : key_files_) {
    secrets.push_back({.read = [=] { return ReadKeyFile(path, part); }});
  }
  for (const std::string& description : keyring_) {
    secrets.push_back({.read = [=] { return ReadKeyringKey(description); }});
  }
  for (const std::string& path : backing_key_files_) {
    secrets.push_back(
        {.read = [=] { return ReadKeyFile(path, part); }, .for_backing = true});
  }
  return secrets;
}

std::ptrdiff_t OpenArguments::uses_of_standard_input() const {
  return std::ranges::count(key_files_, "-") +
         std::ranges::count(backing_key_files_, "-");
}

std::unique_ptr<PassphraseSource> OpenArguments::MakePassphraseSource(
    const OpenOptions& options) const {
  if (uses_of_standard_input() > 1) {
    throw UsageError("standard input can be a key file once only");
  }
  if (key_files_.empty() && backing_key_files_.empty() &&
      !(key_file_offset_.empty() && key_file_size_.empty())) {
    throw UsageError("--key-file-offset and --key-file-size need --key-file");
  }
  std::vector<OfferedSecret> secrets = OfferedSecrets();
  const bool only_for_backing =
      std::ranges::all_of(secrets, &OfferedSecret::for_backing);
  const auto credential = only_for_backing ? CredentialFile() : std::nullopt;
  if (credential) {
    secrets.push_back({.read = [=] { return ReadKeyFile(*credential); }});
  }
  std::unique_ptr<PassphraseSource> source;
  if (only_for_backing && !credential) {
    source = std::make_unique<TerminalPrompt>();
  }
  if (!secrets.empty()) {
    std::vector own_layers{options.image.native(), options.header.native()};
    if (options.partition) own_layers.push_back(PartitionName(options));
    source = std::make_unique<KeyFiles>(
        std::move(secrets), std::move(own_layers), std::move(source));
  }
  if (volume_key_file_.empty()) return source;
  return std::make_unique<VolumeKeyFile>(volume_key_file_, std::move(source));
}

void Warn(const std::string& text) {
  fmt::print(stderr, "pellucid: warning: {}\n", Printable(text));
}

void WarnAbout(const OpenedImage& image) {
  for (const std::string& warning : image.warnings) Warn(warning);
}

void CheckExpectedHeader(const OpenOptions& options) {
  if (options.expected_header.any()) DescribeImage(options);
}

OpenedImage OpenAndWarn(const OpenOptions& options,
                        PassphraseSource& passphrases) {
  OpenedImage image = OpenImage(options, passphrases);
  WarnAbout(image);
  return image;
}

}  // namespace pellucid::cli
