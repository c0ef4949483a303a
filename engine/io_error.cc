#include "engine/io_error.h"

#include <fmt/core.h>

#include <system_error>

namespace pellucid {

void ThrowIoError(int host_errno, std::string_view name) {
  throw IoError(
      host_errno,
      fmt::format("{}: {}", name, std::generic_category().message(host_errno)));
}

}  // namespace pellucid
