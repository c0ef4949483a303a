#ifndef PELLUCID_TOOLS_PROGRESS_BAR_H_
#define PELLUCID_TOOLS_PROGRESS_BAR_H_

#include <chrono>
#include <cstdint>
#include <string>

namespace pellucid::cli {

// How far a copy has come.
struct Progress {
  uint64_t position = 0;  // Bytes that are done, holes among them.
  uint64_t copied = 0;    // Those of them that had to be read.
};

// One line of at most `columns` columns: bar, amount, rate and time left.
std::string FormatProgress(Progress progress, uint64_t total,
                           std::chrono::duration<double> elapsed,
                           unsigned columns);

// A line on standard error that shows how far a copy, or other work that is
// counted in bytes, has come; nothing if that is no terminal, or a
// dumb one. Not synchronised.
class ProgressBar {
 public:
  ProgressBar(uint64_t total, bool quiet);
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  // Erases the line.
  ~ProgressBar();

  // Draws at most ten times a second, however often it is called, and not in
  // the first moments.
  void Show(Progress progress);

 private:
  const uint64_t total_;
  const bool visible_;
  const std::chrono::steady_clock::time_point begin_;
  std::chrono::steady_clock::time_point drawn_at_;
  bool drawn_ = false;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_PROGRESS_BAR_H_
