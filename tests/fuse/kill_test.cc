// The server dies, or is told to end, while programs write: what was promised
// to them is there afterwards.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "fuse/unmount.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/fuse/foreground_fixture.h"
#include "tests/fuse/program_fixture.h"
#include "tests/fuse/stamped_writer.h"
#include "tests/fuse/writable_stack_fixture.h"

namespace pellucid::fuse {
namespace {

using Confirmation = StampedWriter::Confirmation;

struct KillCase {
  std::string kind;
  int rounds;
};

void PrintTo(const KillCase& test, std::ostream* out) { *out << test.kind; }

// 50 rounds that wait for fsync.
const KillCase kFsyncCases[] = {
    {"luks", 9},         {"luks_512", 8},       {"luks_snapshots", 8},
    {"luks_lazy", 8},    {"luks2_over_raw", 7}, {"extended_over_luks", 7},
    {"luks_uncached", 3}};

class KillTest : public ProgramTest,
                 public ::testing::WithParamInterface<KillCase> {
 protected:
  // Lets some writers write until `end` has ended the mount; gives what they
  // say about the content after the next mount.
  template <typename End>
  void RunRound(const WritableStack& stack, Confirmation confirmation,
                uint64_t seed, End end) {
    std::mt19937_64 random(seed);
    ForegroundMount mount(stack.MountArguments(), directory(),
                          folder() / "log");
    const Bytes initial = ReadHostFile(disk());
    const uint64_t count = 1 + seed % 2;
    // Two writers share clusters.
    const uint64_t stripe = count == 1 ? initial.size() : 24 << 10;
    std::deque<StampedWriter> writers;
    for (uint64_t i = 0; i < count; ++i) {
      writers.emplace_back(initial, i, count, stripe, confirmation,
                           seed * 2 + i);
    }
    {
      std::vector<std::jthread> threads;
      for (StampedWriter& writer : writers) {
        threads.emplace_back([&] { writer.Run(disk()); });
      }
      usleep(static_cast<useconds_t>(20'000 + random() % 200'000));
      end(mount, writers);
      for (StampedWriter& writer : writers) writer.Stop();
    }
    for (const StampedWriter& writer : writers) {
      confirmed_ += writer.confirmed();
    }
    // A dirty image says itself that its refcounts are wrong until it is
    // opened to write.
    if (GetParam().kind != "luks_lazy") {
      EXPECT_EQ(stack.Damage(true), "");
    }
    std::vector<std::string> arguments = stack.MountArguments();
    arguments.push_back(directory());
    ASSERT_NO_FATAL_FAILURE(MustRun(arguments));
    const Bytes content = ReadHostFile(disk());
    MustRun({"umount", "directory"});
    for (const StampedWriter& writer : writers) {
      EXPECT_EQ(writer.Complaint(content), "");
    }
    EXPECT_EQ(stack.Damage(true), "");
  }

  uint64_t confirmed_ = 0;
};

TEST_P(KillTest, WhatFsyncConfirmedIsThereAfterTheServerWasKilled) {
  const StackKind kind = FindStackKind(GetParam().kind);
  WritableStack stack(kind, WritableStack::DefaultSize(kind));
  Bytes snapshot;
  if (kind.snapshots) snapshot = stack.SnapshotByOthers();
  for (int round = 0; round < GetParam().rounds && !HasFailure(); ++round) {
    SCOPED_TRACE(fmt::format("round {}", round));
    RunRound(stack, Confirmation::kFsync, static_cast<uint64_t>(round),
             [](ForegroundMount& mount, auto&) { mount.Kill(); });
  }
  EXPECT_GT(confirmed_, 1000U);
  if (kind.snapshots) {
    EXPECT_TRUE(stack.SnapshotByOthers() == snapshot);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, KillTest, ::testing::ValuesIn(kFsyncCases),
                         [](const ::testing::TestParamInfo<KillCase>& info) {
                           return info.param.kind;
                         });

class EndedWriteTest : public KillTest {};

TEST_P(EndedWriteTest, WhatReturnedBeforeASignalIsThere) {
  const StackKind kind = FindStackKind(GetParam().kind);
  WritableStack stack(kind, WritableStack::DefaultSize(kind));
  for (int round = 0; round < GetParam().rounds && !HasFailure(); ++round) {
    RunRound(stack, Confirmation::kCaller, static_cast<uint64_t>(round),
             [](ForegroundMount& mount, std::deque<StampedWriter>& writers) {
               for (StampedWriter& writer : writers) writer.Confirm();
               EXPECT_EQ(mount.End(SIGTERM), 0);
             });
  }
  EXPECT_GT(confirmed_, 100U);
}

TEST_P(EndedWriteTest, UmountWaitsUntilEverythingIsWritten) {
  const StackKind kind = FindStackKind(GetParam().kind);
  WritableStack stack(kind, WritableStack::DefaultSize(kind));
  for (int round = 0; round < GetParam().rounds && !HasFailure(); ++round) {
    RunRound(stack, Confirmation::kCaller, static_cast<uint64_t>(round),
             [&](ForegroundMount& mount, std::deque<StampedWriter>& writers) {
               for (StampedWriter& writer : writers) writer.Stop();
               // Idle as soon as the writers have closed the file.
               ProgramResult result;
               for (int i = 0; i < 1000; ++i) {
                 result = Pellucid({"umount", "directory"});
                 if (result.exit_code == 0) break;
                 usleep(5'000);
               }
               EXPECT_EQ(result.exit_code, 0) << result.err;
               // Nobody holds the image any more, so all of it is there.
               stack.WriteByQemu("read 0 512");
               for (StampedWriter& writer : writers) writer.Confirm();
               EXPECT_EQ(mount.Await(), 0);
             });
  }
  EXPECT_GT(confirmed_, 100U);
}

INSTANTIATE_TEST_SUITE_P(Kinds, EndedWriteTest,
                         ::testing::Values(KillCase{"luks", 3},
                                           KillCase{"luks_snapshots", 2},
                                           KillCase{"luks1_over_raw", 2}),
                         [](const ::testing::TestParamInfo<KillCase>& info) {
                           return info.param.kind;
                         });

class WritethroughKillTest : public KillTest {};

TEST_P(WritethroughKillTest, WhatWriteReturnedIsThereAfterTheServerWasKilled) {
  const StackKind kind = FindStackKind(GetParam().kind);
  WritableStack stack(kind, WritableStack::DefaultSize(kind));
  for (int round = 0; round < GetParam().rounds && !HasFailure(); ++round) {
    RunRound(stack, Confirmation::kReturn, static_cast<uint64_t>(round),
             [](ForegroundMount& mount, auto&) { mount.Kill(); });
  }
  EXPECT_GT(confirmed_, 20U);
}

INSTANTIATE_TEST_SUITE_P(Kinds, WritethroughKillTest,
                         ::testing::Values(KillCase{"luks_writethrough", 4}),
                         [](const ::testing::TestParamInfo<KillCase>& info) {
                           return info.param.kind;
                         });

}  // namespace
}  // namespace pellucid::fuse
