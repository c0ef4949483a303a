#ifndef PELLUCID_TOOLS_CREATE_ARGUMENTS_H_
#define PELLUCID_TOOLS_CREATE_ARGUMENTS_H_

#include <boost/program_options/options_description.hpp>
#include <string>

#include "engine/create_image.h"
#include "tools/kdf_arguments.h"
#include "tools/new_passphrase.h"

namespace pellucid::cli {

// The options of `pellucid create` that say what is to be made. Not
// synchronised.
class CreateArguments {
 public:
  CreateArguments() = default;
  CreateArguments(const CreateArguments&) = delete;
  CreateArguments& operator=(const CreateArguments&) = delete;

  // Adds the options to `options`, which keeps pointers into this object.
  void AddTo(boost::program_options::options_description& options);

  // What the user said; `size` is empty if it was not given. Call after
  // parsing. Throws UsageError for a value that an option does not take, and
  // for options that do not go together.
  NewImage ToNewImage(const std::string& file, const std::string& size) const;

  // Is the whole disk to be stored from the start?
  bool preallocates() const;

  // Where the passphrase comes from.
  const NewPassphraseArguments& passphrase() const { return passphrase_; }

 private:
  enum class Encrypted { kNo, kLuks1, kLuks2 };

  void AddFormatOptions(boost::program_options::options_description& options);
  void AddLuksOptions(boost::program_options::options_description& options);
  Encrypted encrypted() const;
  bool is_raw() const;
  void CheckLuksOptions(Encrypted encrypted) const;
  void CheckPayloadOptions(const std::string& size) const;
  qcow2::CreateOptions ToQcow2Options() const;
  luks::FormatOptions ToLuksOptions(unsigned version) const;

  std::string format_;
  std::string encryption_;
  std::string detached_header_;
  bool payload_exists_ = false;
  NewPassphraseArguments passphrase_{""};
  bool force_ = false;

  std::string cluster_size_;
  std::string refcount_bits_;
  bool extended_l2_ = false;
  bool lazy_refcounts_ = false;
  std::string compression_type_;
  std::string compat_;
  std::string backing_;
  std::string backing_format_;
  std::string preallocation_;

  std::string cipher_;
  std::string key_size_;
  std::string hash_;
  std::string sector_size_;
  std::string uuid_;
  std::string label_;
  KdfArguments kdf_;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_CREATE_ARGUMENTS_H_
