#include "tools/terminal_window.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace pellucid::cli {
namespace {

constexpr unsigned kDefaultColumns = 80;

std::string_view Environment(const char* name) {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing here changes the environment
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

unsigned TerminalColumns(int fd) {
  winsize size = {};
  if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
    return kDefaultColumns;
  }
  return size.ws_col;
}

bool ShowsColour(int fd) {
  return isatty(fd) != 0 && Environment("NO_COLOR").empty() &&
         Environment("TERM") != "dumb";
}

}  // namespace pellucid::cli
