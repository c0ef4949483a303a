#ifndef PELLUCID_ENGINE_KEPT_ERROR_H_
#define PELLUCID_ENGINE_KEPT_ERROR_H_

#include <string>

#include "engine/errors.h"

namespace pellucid {

// An exception put aside, to be thrown later and in any thread, as often as
// necessary and with the type, code and text that it had. (A std::exception_ptr
// would share one object between the threads.)
class KeptError {
 public:
  // The exception that is being handled; to be called in a handler. What is
  // not of this engine becomes an IoError with EIO.
  static KeptError Current();

  [[noreturn]] void Throw() const;

 private:
  KeptError(ExitCode kind, int host_errno, std::string text)
      : kind_(kind), host_errno_(host_errno), text_(std::move(text)) {}

  ExitCode kind_;
  int host_errno_;  // Of an IoError.
  std::string text_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_KEPT_ERROR_H_
