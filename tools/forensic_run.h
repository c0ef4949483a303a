#ifndef PELLUCID_TOOLS_FORENSIC_RUN_H_
#define PELLUCID_TOOLS_FORENSIC_RUN_H_

#include <boost/program_options/options_description.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid::cli {

// The options of those who must be able to prove that they changed nothing.
// Not synchronised.
class ForensicArguments {
 public:
  ForensicArguments() = default;
  ForensicArguments(const ForensicArguments&) = delete;
  ForensicArguments& operator=(const ForensicArguments&) = delete;

  // Adds the options to `options`, which keeps pointers into this object.
  void AddTo(boost::program_options::options_description& options);

  bool wanted() const { return forensic_; }
  bool evidence_hash() const { return evidence_hash_; }
  // Where the log goes; empty: to standard error.
  const std::string& log() const { return log_; }

  // Throws UsageError for options that need --forensic.
  void Check() const;
  // The same, and if --forensic is given: `what` ("an import") writes.
  void RefuseWriting(std::string_view what) const;

 private:
  bool forensic_ = false;
  bool evidence_hash_ = false;
  std::string log_;
};

// Calls `run`, which is the rest of `subcommand`, and returns its exit code.
// With --forensic all files that it opens are logged, none is opened for
// writing that is there already, and behind it every file that it read is
// looked at again. Throws what `run` throws, Error (kFailure) if a file has
// changed, UsageError and IoError.
int RunForensically(const ForensicArguments& arguments,
                    std::string_view subcommand,
                    const std::vector<std::string>& words,
                    const std::function<int()>& run);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_FORENSIC_RUN_H_
