#ifndef PELLUCID_ENGINE_IO_ERROR_H_
#define PELLUCID_ENGINE_IO_ERROR_H_

#include <string_view>

#include "engine/errors.h"

namespace pellucid {

// Throws IoError: "NAME: what strerror says of host_errno".
[[noreturn]] void ThrowIoError(int host_errno, std::string_view name);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_IO_ERROR_H_
