#include "tools/terminal_window.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
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

// Where what continues `line` begins.
size_t HangingIndent(std::string_view line) {
  const size_t begin = line.find_first_not_of(' ');
  const size_t colon = line.find(":  ");
  if (colon != std::string_view::npos &&
      line.substr(begin, colon - begin).find(' ') == std::string_view::npos) {
    return std::min(line.find_first_not_of(' ', colon + 1), line.size());
  }
  return begin + 4;
}

std::string WrappedLine(std::string_view line, size_t columns) {
  std::string wrapped;
  size_t indent = 0;  // Of what is left of the line.
  while (indent + line.size() > columns) {
    const size_t first_word_end = line.find(' ', line.find_first_not_of(' '));
    size_t end = line.rfind(' ', columns - indent);
    if (end == std::string_view::npos || end < first_word_end) {
      end = first_word_end;
    }
    if (end == std::string_view::npos) break;
    if (indent == 0) indent = std::min(HangingIndent(line), columns / 2);
    wrapped += line.substr(0, end);
    wrapped += '\n';
    line.remove_prefix(std::min(line.find_first_not_of(' ', end), line.size()));
    if (line.empty()) return wrapped;
    wrapped.append(indent, ' ');
  }
  return wrapped + std::string(line) + '\n';
}

}  // namespace

unsigned TerminalColumns(int fd) {
  winsize size = {};
  if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
    return kDefaultColumns;
  }
  return size.ws_col;
}

bool CanRedraw(int fd) {
  return isatty(fd) != 0 && Environment("TERM") != "dumb";
}

bool ShowsColour(int fd) {
  return CanRedraw(fd) && Environment("NO_COLOR").empty();
}

std::string Wrapped(std::string_view text, unsigned columns) {
  std::string wrapped;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    wrapped += WrappedLine(text.substr(0, end), std::max(columns, 20U));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return wrapped;
}

std::string ForStandardOutput(std::string text) {
  if (isatty(STDOUT_FILENO) == 0) return text;
  return Wrapped(text, TerminalColumns(STDOUT_FILENO));
}

}  // namespace pellucid::cli
