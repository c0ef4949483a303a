#include "tools/terminal_prompt.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "engine/errors.h"
#include "engine/io_error.h"
#include "engine/printable.h"
#include "tools/file_descriptor.h"

namespace pellucid::cli {
namespace {

constexpr std::string_view kTerminalName = "/dev/tty";

// The longest line that a terminal hands over, newline included.
constexpr size_t kMaxLine = 4096;

// The signals that end or stop a process at a prompt.
constexpr std::array kSignals = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT,
                                 SIGALRM, SIGTSTP, SIGTTIN, SIGTTOU};

// Where NoteSignal() tells of signals; open only while a prompt is up.
int signal_pipe_writer = -1;

extern "C" void NoteSignal(int signal_number) {
  const int saved_errno = errno;
  const auto byte = static_cast<unsigned char>(signal_number);
  // The pipe is empty but for signals: one byte always fits.
  [[maybe_unused]] const ssize_t written =
      write(signal_pipe_writer, &byte, sizeof byte);
  errno = saved_errno;
}

// While it lives, kSignals arrive as bytes in a pipe instead of acting.
class SignalsToPipe {
 public:
  SignalsToPipe() : SignalsToPipe(MakePipe()) {}
  SignalsToPipe(const SignalsToPipe&) = delete;
  SignalsToPipe& operator=(const SignalsToPipe&) = delete;

  ~SignalsToPipe() {
    for (size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals[i], &previous_[i], nullptr);
    }
    signal_pipe_writer = -1;
  }

  int reader() const { return reader_.get(); }

 private:
  static std::array<int, 2> MakePipe() {
    std::array<int, 2> ends;
    if (pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
      ThrowIoError(errno, "pipe");
    }
    return ends;
  }

  explicit SignalsToPipe(std::array<int, 2> ends)
      : reader_(ends[0]), writer_(ends[1]) {
    signal_pipe_writer = writer_.get();
    struct sigaction action {};
    action.sa_handler = NoteSignal;
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals[i], nullptr, &previous_[i]);
      // What our parent told us to ignore (nohup) stays ignored.
      if (previous_[i].sa_handler != SIG_IGN) {
        sigaction(kSignals[i], &action, nullptr);
      }
    }
  }

  FileDescriptor reader_;
  FileDescriptor writer_;
  std::array<struct sigaction, kSignals.size()> previous_;
};

// While it lives, the terminal shows nothing that is typed.
class EchoOff {
 public:
  explicit EchoOff(int terminal) : terminal_(terminal) {
    if (tcgetattr(terminal, &before_) != 0) ThrowIoError(errno, kTerminalName);
    termios silent = before_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL);
    if (tcsetattr(terminal, TCSAFLUSH, &silent) != 0) {
      ThrowIoError(errno, kTerminalName);
    }
  }
  EchoOff(const EchoOff&) = delete;
  EchoOff& operator=(const EchoOff&) = delete;
  ~EchoOff() { tcsetattr(terminal_, TCSAFLUSH, &before_); }

 private:
  int terminal_;
  termios before_;
};

void Print(int terminal, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(terminal, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) ThrowIoError(errno, kTerminalName);
    text.remove_prefix(static_cast<size_t>(written));
  }
}

struct Answer {
  int signal = 0;  // If not 0, it came instead of a line.
  std::optional<crypto::SecretBytes> line;
};

Answer ReadLine(int terminal, int signals) {
  crypto::SecretBytes buffer(kMaxLine);
  for (;;) {
    std::array<pollfd, 2> events = {
        {{terminal, POLLIN, 0}, {signals, POLLIN, 0}}};
    if (poll(events.data(), events.size(), -1) < 0 && errno != EINTR) {
      ThrowIoError(errno, kTerminalName);
    }
    unsigned char signal_number = 0;
    if (read(signals, &signal_number, 1) == 1) {
      return {.signal = signal_number, .line = std::nullopt};
    }
    if (events[0].revents == 0) continue;
    const ssize_t got = read(terminal, buffer.bytes().data(), buffer.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) ThrowIoError(errno, kTerminalName);
    if (got == 0) return {};
    std::span<const std::byte> typed =
        std::as_const(buffer).bytes().first(static_cast<size_t>(got));
    if (typed.back() == std::byte{'\n'}) typed = typed.first(typed.size() - 1);
    return {.signal = 0, .line = crypto::SecretBytes(typed)};
  }
}

bool StopsTheProcess(int signal_number) {
  return signal_number == SIGTSTP || signal_number == SIGTTIN ||
         signal_number == SIGTTOU;
}

Answer AskOnce(int terminal, std::string_view prompt) {
  const SignalsToPipe signals;
  const EchoOff echo_off(terminal);
  Print(terminal, prompt);
  Answer answer = ReadLine(terminal, signals.reader());
  Print(terminal, "\n");
  return answer;
}

FileDescriptor OpenTerminal() {
  FileDescriptor terminal(
      open(kTerminalName.data(), O_RDWR | O_CLOEXEC | O_NOCTTY));
  if (!terminal.is_open()) {
    throw UsageError(
        "there is no terminal to ask for a passphrase on; use --key-file FILE, "
        "or --key-file - for standard input");
  }
  return terminal;
}

}  // namespace

std::optional<crypto::SecretBytes> AskOnTerminal(std::string_view prompt) {
  const FileDescriptor terminal = OpenTerminal();
  for (;;) {
    Answer answer = AskOnce(terminal.get(), prompt);
    if (answer.signal == 0) return std::move(answer.line);
    // The terminal and the signal actions are as before: do now what the
    // signal is for.
    kill(getpid(), answer.signal);
    if (!StopsTheProcess(answer.signal)) return std::nullopt;
  }
}

std::optional<crypto::SecretBytes> TerminalPrompt::Get(std::string_view layer,
                                                       unsigned attempt) {
  if (attempt == 0) {
    known_ = accepted_.size();
  }
  offered_.reset();
  if (attempt < known_) return accepted_[attempt].Clone();
  const size_t asked = attempt - known_;
  if (asked >= kTries) return std::nullopt;
  const std::string name = Printable(layer);
  const std::string again =
      asked > 0 ? fmt::format("{}: wrong passphrase, try again\n", name) : "";
  offered_ = AskOnTerminal(fmt::format("{}Passphrase for {}: ", again, name));
  if (!offered_) return std::nullopt;
  return offered_->Clone();
}

void TerminalPrompt::Accepted() {
  if (offered_) accepted_.push_back(std::move(*offered_));
  offered_.reset();
}

}  // namespace pellucid::cli
