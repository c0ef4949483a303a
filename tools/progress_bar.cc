#include "tools/progress_bar.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "tools/byte_size.h"
#include "tools/terminal_window.h"

namespace pellucid::cli {
namespace {

constexpr unsigned kMaxBar = 40;

// Rates of the first moments say nothing about the time left.
constexpr std::chrono::duration<double> kSettled(0.5);

// What is done by then needs no bar, and its rate would mean nothing.
constexpr std::chrono::milliseconds kPatience(200);

// Somewhat less than the interval of who calls ten times a second.
constexpr std::chrono::milliseconds kRedraw(80);

std::string FormatTimeLeft(double fraction,
                           std::chrono::duration<double> elapsed) {
  if (elapsed < kSettled || fraction <= 0) return "--:--";
  const double seconds = elapsed.count() * (1 - fraction) / fraction;
  if (seconds >= 360000) return "days";
  const auto whole = static_cast<unsigned>(seconds);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60,
                     whole % 60);
}

std::string FormatBar(double fraction, size_t width) {
  const auto filled = std::min(
      width, static_cast<size_t>(fraction * static_cast<double>(width)));
  return fmt::format("[{}{}] ", std::string(filled, '#'),
                     std::string(width - filled, '.'));
}

}  // namespace

std::string FormatProgress(Progress progress, uint64_t total,
                           std::chrono::duration<double> elapsed,
                           unsigned columns) {
  const double fraction = total == 0 ? 1.0
                                     : static_cast<double>(progress.position) /
                                           static_cast<double>(total);
  const double rate =
      elapsed.count() > 0
          ? static_cast<double>(progress.copied) / elapsed.count()
          : 0;
  const std::string head =
      fmt::format("{:3}% ", static_cast<unsigned>(fraction * 100));
  const std::string tail = fmt::format(
      "{} of {}, {}/s, {} left", FormatByteSize(progress.position),
      FormatByteSize(total), FormatByteSize(static_cast<uint64_t>(rate)),
      FormatTimeLeft(fraction, elapsed));
  // The last column stays free: some terminals wrap when it is written.
  const size_t used = head.size() + tail.size() + std::string("[] ").size() + 1;
  const size_t room =
      columns > used ? std::min<size_t>(columns - used, kMaxBar) : 0;
  std::string line = head;
  if (room >= 5) line += FormatBar(fraction, room);
  line += tail;
  if (line.size() >= columns) line.resize(columns > 0 ? columns - 1 : 0);
  return line;
}

ProgressBar::ProgressBar(uint64_t total, bool quiet)
    : total_(total),
      visible_(!quiet && CanRedraw(STDERR_FILENO)),
      begin_(std::chrono::steady_clock::now()) {}

void ProgressBar::Show(Progress progress) {
  if (!visible_) return;
  const auto now = std::chrono::steady_clock::now();
  const auto elapsed = now - begin_;
  if (drawn_ ? now - drawn_at_ < kRedraw : elapsed < kPatience) return;
  fmt::print(stderr, "\r{}\x1b[K",
             FormatProgress(progress, total_, elapsed,
                            TerminalColumns(STDERR_FILENO)));
  (void)std::fflush(stderr);
  drawn_ = true;
  drawn_at_ = now;
}

ProgressBar::~ProgressBar() {
  if (drawn_) (void)std::fputs("\r\x1b[K", stderr);
}

}  // namespace pellucid::cli
