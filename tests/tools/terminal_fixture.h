#ifndef PELLUCID_TESTS_TOOLS_TERMINAL_FIXTURE_H_
#define PELLUCID_TESTS_TOOLS_TERMINAL_FIXTURE_H_

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid {

// A program that runs on a terminal of its own, and somebody who types.
class ProgramOnTerminal {
 public:
  ProgramOnTerminal(const std::vector<std::string>& argv,
                    const std::filesystem::path& folder);
  ProgramOnTerminal(const ProgramOnTerminal&) = delete;
  ProgramOnTerminal& operator=(const ProgramOnTerminal&) = delete;
  // Kills the program if it still runs.
  ~ProgramOnTerminal();

  // Waits until the screen shows `text` behind what it showed when this
  // returned last. Throws std::runtime_error after 60 seconds, or when the
  // program ends.
  void WaitFor(std::string_view text);
  void Type(std::string_view keys);

  // Everything that was shown until now.
  const std::string& screen() const { return screen_; }
  // Does the terminal show what is typed?
  bool Echoes() const;

  void Signal(int signal_number) const;
  // Reads the screen until the program ends. Its exit code, or 128 + signal.
  int WaitForEnd();

 private:
  // False when the program has closed the terminal.
  bool ReadScreen();

  pid_t pid_ = -1;
  int terminal_ = -1;  // Our side of it.
  std::string screen_;
  size_t seen_ = 0;  // Of screen_, by WaitFor().
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_TOOLS_TERMINAL_FIXTURE_H_
