#ifndef PELLUCID_TOOLS_OPEN_ARGUMENTS_H_
#define PELLUCID_TOOLS_OPEN_ARGUMENTS_H_

#include <boost/program_options/options_description.hpp>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "engine/open_image.h"
#include "engine/passphrase_source.h"
#include "tools/forensic_run.h"
#include "tools/key_files.h"

namespace pellucid::cli {

// The options with which every subcommand is told how to open an image. Not
// synchronised.
class OpenArguments {
 public:
  OpenArguments() = default;
  OpenArguments(const OpenArguments&) = delete;
  OpenArguments& operator=(const OpenArguments&) = delete;

  // Adds the options to `options`, which keeps pointers into this object.
  void AddTo(boost::program_options::options_description& options);

  // Adds --partition, for subcommands to which a part of the disk is as good as
  // all of it.
  void AddPartitionTo(boost::program_options::options_description& options);

  // What the user said; the caller fills in the image. Call after parsing.
  // Throws UsageError for a value that an option does not take.
  OpenOptions ToOpenOptions() const;

  bool read_only() const { return read_only_ || forensic_.wanted(); }
  const ForensicArguments& forensic() const { return forensic_; }
  // Was anything said that makes sense for an image only?
  bool names_image_parts() const;
  // Is standard input one of the key files?
  bool reads_standard_input() const;

  // What the options name: key files, a descriptor, the kernel keyring. Without
  // any, the credential "pellucid.passphrase" if systemd passes one, otherwise
  // the terminal. Reads nothing before it is asked for. `options` tell which
  // layers are not backing images. Throws UsageError.
  std::unique_ptr<PassphraseSource> MakePassphraseSource(
      const OpenOptions& options) const;

  // How many key files are standard input. Call after parsing.
  std::ptrdiff_t uses_of_standard_input() const;

 private:
  std::vector<OfferedSecret> OfferedSecrets() const;

  std::string header_;
  std::string data_file_;
  std::string format_ = "auto";
  std::string header_format_ = "auto";
  std::string encryption_ = "auto";
  std::string snapshot_;
  std::string partition_;
  std::vector<std::string> key_files_;
  std::string key_file_offset_;
  std::string key_file_size_;
  std::vector<std::string> backing_key_files_;
  std::string passphrase_fd_;
  std::vector<std::string> keyring_;
  std::string volume_key_file_;
  std::string keyslot_;
  ExpectedHeader expected_header_;
  std::string max_kdf_memory_;
  bool no_backing_ = false;
  std::vector<std::string> allowed_paths_;
  bool force_share_ = false;
  bool read_only_ = false;
  ForensicArguments forensic_;
};

// Prints a warning on standard error.
void Warn(const std::string& text);
// Prints what `image` warns of.
void WarnAbout(const OpenedImage& image);
// Refuses an image whose header is not the expected one, for subcommands that
// have no use for the header. Throws as DescribeImage() does.
void CheckExpectedHeader(const OpenOptions& options);
// OpenImage() and WarnAbout().
OpenedImage OpenAndWarn(const OpenOptions& options,
                        PassphraseSource& passphrases);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_OPEN_ARGUMENTS_H_
