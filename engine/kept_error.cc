#include "engine/kept_error.h"

#include <cerrno>
#include <exception>

namespace pellucid {

KeptError KeptError::Current() {
  try {
    throw;
  } catch (const IoError& e) {
    return {ExitCode::kIoError, e.host_errno(), e.what()};
  } catch (const Error& e) {
    return {e.exit_code(), 0, e.what()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::kIoError, ENOMEM, "out of memory"};
  } catch (const std::exception& e) {
    return {ExitCode::kIoError, EIO, e.what()};
  }
}

void KeptError::Throw() const {
  switch (kind_) {
    case ExitCode::kIoError:
      throw IoError(host_errno_, text_);
    case ExitCode::kCorruptImage:
      throw CorruptImage(text_);
    case ExitCode::kUnsupported:
      throw Unsupported(text_);
    default:
      throw Error(kind_, text_);
  }
}

}  // namespace pellucid
