#ifndef PELLUCID_TOOLS_OPEN_ARGUMENTS_H_
#define PELLUCID_TOOLS_OPEN_ARGUMENTS_H_

#include <boost/program_options/options_description.hpp>
#include <memory>
#include <string>
#include <vector>

#include "engine/open_image.h"
#include "engine/passphrase_source.h"

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

  // What the user said; the caller fills in the image. Call after parsing.
  // Throws UsageError for a value that an option does not take.
  OpenOptions ToOpenOptions() const;

  // The key files if there are any, otherwise the terminal. Opens neither
  // before it is asked for a passphrase. Throws UsageError.
  std::unique_ptr<PassphraseSource> MakePassphraseSource() const;

 private:
  std::string header_;
  std::string format_;
  std::string header_format_;
  std::string encryption_;
  std::string snapshot_;
  std::vector<std::string> key_files_;
  std::string keyslot_;
  bool no_backing_ = false;
  bool force_share_ = false;
  // Only accepted: nothing is opened for writing yet.
  bool read_only_ = false;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_OPEN_ARGUMENTS_H_
