#ifndef PELLUCID_TOOLS_TERMINAL_WINDOW_H_
#define PELLUCID_TOOLS_TERMINAL_WINDOW_H_

namespace pellucid::cli {

// The width of the terminal that `fd` is; 80 if it is none or does not say.
unsigned TerminalColumns(int fd);

// May colours be written to `fd`? Only to a terminal that has them, and not if
// the environment variable NO_COLOR is there and not empty (no-color.org).
bool ShowsColour(int fd);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_TERMINAL_WINDOW_H_
