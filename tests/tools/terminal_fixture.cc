#include "tests/tools/terminal_fixture.h"

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <utility>

namespace pellucid {
namespace {

constexpr int kPatienceMilliseconds = 60000;

}  // namespace

ProgramOnTerminal::ProgramOnTerminal(const std::vector<std::string>& argv,
                                     const std::filesystem::path& folder) {
  std::vector<char*> arguments;
  for (const std::string& argument : argv) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  const char* const folder_name = folder.c_str();
  winsize size = {.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
  pid_ = forkpty(&terminal_, nullptr, nullptr, &size);
  if (pid_ < 0) throw std::runtime_error("forkpty failed");
  if (pid_ == 0) {
    if (chdir(folder_name) == 0) execvp(arguments[0], arguments.data());
    _exit(127);
  }
}

ProgramOnTerminal::~ProgramOnTerminal() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(terminal_);
}

bool ProgramOnTerminal::ReadScreen() {
  pollfd event = {.fd = terminal_, .events = POLLIN, .revents = 0};
  if (poll(&event, 1, kPatienceMilliseconds) != 1) {
    throw std::runtime_error("nothing happens on the terminal; it shows: " +
                             screen_);
  }
  std::array<char, 4096> buffer;
  const ssize_t got = read(terminal_, buffer.data(), buffer.size());
  if (got < 0 && errno == EINTR) return true;
  // EIO says that nobody has the other side open.
  if (got <= 0) return false;
  screen_.append(buffer.data(), static_cast<size_t>(got));
  return true;
}

void ProgramOnTerminal::WaitFor(std::string_view text) {
  size_t found;
  while ((found = screen_.find(text, seen_)) == std::string::npos) {
    if (!ReadScreen()) {
      throw std::runtime_error("the program ended; the terminal shows: " +
                               screen_);
    }
  }
  seen_ = found + text.size();
}

void ProgramOnTerminal::Type(std::string_view keys) {
  if (write(terminal_, keys.data(), keys.size()) !=
      static_cast<ssize_t>(keys.size())) {
    throw std::runtime_error("the terminal takes no keys");
  }
}

bool ProgramOnTerminal::Echoes() const {
  termios settings;
  if (tcgetattr(terminal_, &settings) != 0) {
    throw std::runtime_error("the terminal has no settings");
  }
  return (settings.c_lflag & ECHO) != 0;
}

void ProgramOnTerminal::Signal(int signal_number) const {
  kill(pid_, signal_number);
}

int ProgramOnTerminal::WaitForEnd() {
  while (ReadScreen()) {
  }
  int status = 0;
  if (waitpid(std::exchange(pid_, -1), &status, 0) < 0) {
    throw std::runtime_error("the program is gone");
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace pellucid
