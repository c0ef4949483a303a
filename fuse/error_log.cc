#include "fuse/error_log.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

#include "engine/printable.h"

namespace pellucid::fuse {
namespace {

constexpr std::chrono::seconds kPeriod{10};
constexpr unsigned kMessagesPerPeriod = 20;

}  // namespace

void ErrorLog::Report(std::string_view request,
                      std::string_view reason) noexcept {
  try {
    const std::scoped_lock lock(mutex_);
    if (!Admit(reason)) return;
    Write(Printable(fmt::format("{}: {}", request, reason)));
    if (written_in_period_ == kMessagesPerPeriod) {
      Write("many requests fail; more messages are left out for a while");
    }
  } catch (...) {
    // The request gets its errno whether or not somebody can be told why.
  }
}

bool ErrorLog::Admit(std::string_view reason) {
  if (std::find(recent_reasons_.begin(), recent_reasons_.end(), reason) !=
      recent_reasons_.end()) {
    return false;
  }
  const auto now = std::chrono::steady_clock::now();
  if (now - period_start_ > kPeriod) {
    period_start_ = now;
    written_in_period_ = 0;
  }
  if (written_in_period_ == kMessagesPerPeriod) return false;
  ++written_in_period_;
  recent_reasons_[next_recent_] = reason;
  next_recent_ = (next_recent_ + 1) % recent_reasons_.size();
  return true;
}

void ErrorLog::Write(const std::string& line) {
  if (target_ == LogTarget::kSystemLog) {
    attendant_.Log(line);
  } else {
    fmt::print(stderr, "pellucid: {}\n", line);
  }
}

}  // namespace pellucid::fuse
