#ifndef PELLUCID_ENGINE_ERRORS_H_
#define PELLUCID_ENGINE_ERRORS_H_

#include <stdexcept>
#include <string>

namespace pellucid {

// The process exit codes of every subcommand; documented in pellucid(1),
// stable.
enum class ExitCode : int {
  kOk = 0,
  kFailure = 1,          // Anything that has no code of its own.
  kUsage = 2,            // Wrong command line.
  kWrongPassphrase = 3,  // No passphrase or key file opens the volume.
  kCorruptImage = 4,     // The image contradicts its format.
  kUnsupported = 5,      // A feature that pellucid does not have.
  kImageLocked = 6,      // Another program uses the image.
  kIoError = 7,          // The host refused to open, read or write.
};

// An error that the user sees. The text starts with the file concerned.
class Error : public std::runtime_error {
 public:
  Error(ExitCode exit_code, const std::string& text)
      : std::runtime_error(text), exit_code_(exit_code) {}
  ExitCode exit_code() const { return exit_code_; }

 private:
  ExitCode exit_code_;
};

class CorruptImage : public Error {
 public:
  explicit CorruptImage(const std::string& text)
      : Error(ExitCode::kCorruptImage, text) {}
};

class Unsupported : public Error {
 public:
  explicit Unsupported(const std::string& text)
      : Error(ExitCode::kUnsupported, text) {}
};

class WrongPassphrase : public Error {
 public:
  explicit WrongPassphrase(const std::string& text)
      : Error(ExitCode::kWrongPassphrase, text) {}
};

class ImageLocked : public Error {
 public:
  explicit ImageLocked(const std::string& text, bool readers_may_join = false)
      : Error(ExitCode::kImageLocked, text),
        readers_may_join_(readers_may_join) {}
  // Does the holder only keep writers out, as readers do?
  bool readers_may_join() const { return readers_may_join_; }

 private:
  bool readers_may_join_;
};

class UsageError : public Error {
 public:
  explicit UsageError(const std::string& text)
      : Error(ExitCode::kUsage, text) {}
};

// The host failed; `host_errno` is what a FUSE caller is told.
class IoError : public Error {
 public:
  IoError(int host_errno, const std::string& text)
      : Error(ExitCode::kIoError, text), host_errno_(host_errno) {}
  int host_errno() const { return host_errno_; }

 private:
  int host_errno_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_ERRORS_H_
