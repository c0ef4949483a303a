#ifndef PELLUCID_TOOLS_HEADER_ARGUMENTS_H_
#define PELLUCID_TOOLS_HEADER_ARGUMENTS_H_

#include <boost/program_options/options_description.hpp>
#include <memory>
#include <string>

#include "engine/luks/located_header.h"
#include "engine/open_image.h"
#include "engine/passphrase_source.h"
#include "tools/open_arguments.h"

namespace pellucid::cli {

// Those options for opening an image that matter to someone who works on its
// LUKS header. Each AddTo keeps pointers into this object. Not synchronised.
class HeaderArguments {
 public:
  // Where the header is: --header, --format, --header-format.
  void AddPlaceTo(boost::program_options::options_description& options);
  // As OpenArguments::AddPartitionTo().
  void AddPartitionTo(boost::program_options::options_description& options) {
    arguments_.AddPartitionTo(options);
  }
  // What may be opened besides: --data-file, --no-backing,
  // --allow-path.
  void AddNamedFilesTo(boost::program_options::options_description& options);
  // --force-share, for those who only read.
  void AddSharingTo(boost::program_options::options_description& options);
  // --forensic and what belongs to it, likewise.
  void AddForensicTo(boost::program_options::options_description& options);
  const ForensicArguments& forensic() const { return arguments_.forensic(); }
  // Where the passphrase comes from, or the volume key.
  void AddPassphrasesTo(boost::program_options::options_description& options);

  // Call after parsing. Throws UsageError.
  OpenOptions ToOpenOptions(const std::string& image) const;

  // As OpenArguments::MakePassphraseSource().
  std::unique_ptr<PassphraseSource> MakePassphraseSource() const {
    return arguments_.MakePassphraseSource({});
  }

  // As OpenArguments::uses_of_standard_input().
  std::ptrdiff_t uses_of_standard_input() const {
    return arguments_.uses_of_standard_input();
  }

 private:
  OpenArguments arguments_;
};

// Prints on standard error what is wrong with a header that can be used all the
// same.
void WarnAboutHeader(const luks::LocatedHeader& located);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_HEADER_ARGUMENTS_H_
