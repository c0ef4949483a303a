#ifndef PELLUCID_TOOLS_TERMINAL_WINDOW_H_
#define PELLUCID_TOOLS_TERMINAL_WINDOW_H_

#include <string>
#include <string_view>

namespace pellucid::cli {

// The width of the terminal that `fd` is; 80 if it is none or does not say.
unsigned TerminalColumns(int fd);

// May colours be written to `fd`? Only to a terminal that has them, and not if
// the environment variable NO_COLOR is there and not empty (no-color.org).
bool ShowsColour(int fd);

// Can a line of `fd` be drawn anew? Only on a terminal that is not dumb.
bool CanRedraw(int fd);

// `text` with lines of at most `columns`, broken between words. What continues
// a line begins where its value does ("name:   value"), or four columns further
// in than the line. Words that are too long stay whole.
std::string Wrapped(std::string_view text, unsigned columns);

// `text` as it is to be printed on standard output: wrapped if that is a
// terminal, for programs as it is.
std::string ForStandardOutput(std::string text);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_TERMINAL_WINDOW_H_
