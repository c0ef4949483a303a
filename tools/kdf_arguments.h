#ifndef PELLUCID_TOOLS_KDF_ARGUMENTS_H_
#define PELLUCID_TOOLS_KDF_ARGUMENTS_H_

#include <boost/program_options/options_description.hpp>
#include <string>

#include "engine/luks/kdf_cost.h"

namespace pellucid::cli {

// The options that say how a passphrase becomes a key, and what that costs. Not
// synchronised.
class KdfArguments {
 public:
  KdfArguments() = default;
  KdfArguments(const KdfArguments&) = delete;
  KdfArguments& operator=(const KdfArguments&) = delete;

  // Adds the options to `options`, which keeps pointers into this object.
  void AddTo(boost::program_options::options_description& options);

  // The name of an option that was given, empty if none was. Call after
  // parsing.
  std::string GivenOption() const;

  // What the user said, for a volume of LUKS `version`, which has a default of
  // its own; `hash` is that of pbkdf2, sha256 if empty. Call after parsing.
  // Throws UsageError for a value that an option does not take, and for options
  // that do not go together; luks::CheckKdfCost() judges the rest.
  luks::KdfCost ToKdfCost(unsigned version, const std::string& hash) const;

 private:
  std::string GivenArgon2Option() const;

  std::string kdf_;
  std::string iter_time_;
  std::string iterations_;
  std::string argon2_time_;
  std::string argon2_memory_;
  std::string argon2_cpus_;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_KDF_ARGUMENTS_H_
