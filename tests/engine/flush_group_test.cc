#include "engine/flush_group.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <future>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "engine/kept_error.h"
#include "tests/engine/cached_device.h"
#include "tests/engine/held_flushes.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/thrown_text.h"
#include "tests/engine/writable_memory_device.h"

namespace pellucid {
namespace {

using namespace std::chrono_literals;

// Callers that come while a flush runs.
struct LateCallers {
  static constexpr int kCallers = 6;
  uint64_t flushes = 0;     // In all.
  int done_too_early = 0;   // Of the callers: with the flush that ran before.
  std::vector<int> errnos;  // What each was told.

  // All of them come in time, unless the machine stands still: then again.
  static LateCallers Run(int second_fails_with) {
    for (int attempt = 0;; ++attempt) {
      LateCallers result = RunOnce(second_fails_with);
      if (result.flushes <= 2 || attempt == 9) return result;
    }
  }

 private:
  static LateCallers RunOnce(int second_fails_with) {
    HeldFlushes<WritableMemoryDevice> device(Bytes(4096));
    FlushGroup group(device);
    auto first = std::async(std::launch::async, [&] { group.Flush(); });
    EXPECT_TRUE(device.AwaitBegun(1));
    std::atomic<int> coming = 0;
    std::vector<std::future<int>> callers;
    for (int i = 0; i < kCallers; ++i) {
      callers.push_back(std::async(std::launch::async, [&] {
        ++coming;
        return ErrnoOf([&] { group.Flush(); });
      }));
    }
    EXPECT_TRUE(Eventually([&] { return coming == kCallers; }));
    std::this_thread::sleep_for(30ms);
    device.LetThrough(1);
    first.get();
    EXPECT_TRUE(device.AwaitBegun(2));
    LateCallers result;
    for (const auto& caller : callers) {
      if (caller.wait_for(5ms) == std::future_status::ready) {
        ++result.done_too_early;
      }
    }
    if (second_fails_with != 0) device.FailFlushes(1, second_fails_with);
    device.LetThrough(UINT64_MAX);
    for (auto& caller : callers) result.errnos.push_back(caller.get());
    result.flushes = device.flushes();
    return result;
  }
};

TEST(FlushGroupConcurrentTest, CallersThatComeDuringAFlushShareTheNext) {
  const LateCallers callers = LateCallers::Run(0);
  EXPECT_EQ(callers.done_too_early, 0)
      << "that flush may have passed over what they wrote";
  EXPECT_EQ(callers.flushes, 2U);
  EXPECT_EQ(callers.errnos, std::vector<int>(LateCallers::kCallers, 0));
}

TEST(FlushGroupConcurrentTest, FailureIsToldToEveryoneWhoSharedTheFlush) {
  const LateCallers callers = LateCallers::Run(EDQUOT);
  EXPECT_EQ(callers.flushes, 2U);
  EXPECT_EQ(callers.errnos, std::vector<int>(LateCallers::kCallers, EDQUOT));
}

TEST(FlushGroupTest, FailureFromBeforeTheCallIsNotToldAgain) {
  WritableMemoryDevice device(Bytes(4096));
  FlushGroup group(device);
  device.FailFlushes(1, EIO);
  EXPECT_EQ(ErrnoOf([&] { group.Flush(); }), EIO);
  EXPECT_NO_THROW(group.ThrowKeptError()) << "its caller was told";
  EXPECT_NO_THROW(group.Flush());
}

TEST(FlushGroupTest, KeptErrorIsThrownOnceByWhoeverComesFirst) {
  WritableMemoryDevice device(Bytes(4096));
  FlushGroup group(device);
  const auto throw_kept = [&] { group.ThrowKeptError(); };
  const auto flush = [&] { group.Flush(); };
  EXPECT_TRUE(group.FlushAndKeepError());
  EXPECT_EQ(ErrnoOf(throw_kept), 0);

  device.FailFlushes(1, ENOSPC);
  EXPECT_FALSE(group.FlushAndKeepError());
  EXPECT_TRUE(group.FlushAndKeepError()) << "well again, but not forgotten";
  EXPECT_EQ(ErrnoOf(throw_kept), ENOSPC);
  EXPECT_EQ(ErrnoOf(throw_kept), 0);
  EXPECT_EQ(ErrnoOf(flush), 0);

  device.FailFlushes(1, EDQUOT);
  EXPECT_FALSE(group.FlushAndKeepError());
  EXPECT_EQ(ErrnoOf(flush), EDQUOT) << "although this flush succeeded";
  EXPECT_EQ(ErrnoOf(flush), 0);
  EXPECT_EQ(ErrnoOf(throw_kept), 0);
}

template <typename Throw>
KeptError Keep(Throw throw_it) {
  try {
    throw_it();
  } catch (...) {
    return KeptError::Current();
  }
  throw std::logic_error("nothing was thrown");
}

TEST(KeptErrorTest, TypeCodeAndTextComeBackAsOftenAsNecessary) {
  const KeptError io = Keep([] { throw IoError(ENOSPC, "disk: full"); });
  const KeptError corrupt = Keep([] { throw CorruptImage("disk: torn"); });
  const KeptError unsupported = Keep([] { throw Unsupported("disk: new"); });
  const KeptError locked = Keep([] { throw ImageLocked("disk: in use"); });
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(ThrownText<IoError>([&] { io.Throw(); }), "disk: full");
    EXPECT_EQ(ErrnoOf([&] { io.Throw(); }), ENOSPC);
    EXPECT_EQ(ThrownText<CorruptImage>([&] { corrupt.Throw(); }), "disk: torn");
    EXPECT_EQ(ThrownText<Unsupported>([&] { unsupported.Throw(); }),
              "disk: new");
    EXPECT_EQ(ThrownText<Error>([&] { locked.Throw(); }), "disk: in use");
    try {
      locked.Throw();
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kImageLocked);
    }
  }
}

TEST(KeptErrorTest, WhatIsNotOfTheEngineBecomesAnIoError) {
  EXPECT_EQ(ErrnoOf([] { Keep([] { throw std::bad_alloc(); }).Throw(); }),
            ENOMEM);
  const KeptError other = Keep([] { throw std::out_of_range("index"); });
  EXPECT_EQ(ErrnoOf([&] { other.Throw(); }), EIO);
  EXPECT_EQ(ThrownText<IoError>([&] { other.Throw(); }), "index");
}

}  // namespace
}  // namespace pellucid
