// Headers of strangers that make unlocking dear: in memory, and in time.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "tests/tools/create_fixture.h"
#include "tests/tools/terminal_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class HostileKdfTest : public CreateTest {
 protected:
  // A LUKS2 volume whose only keyslot takes 40 MiB.
  void MakeWith40MiB() {
    MustCreate(Words{"--format", "raw", "--encryption", "luks2",
                     "--argon2-time", "4", "--argon2-memory", "40960",
                     "--argon2-cpus", "1", "disk", "1M"} +
               kKey);
  }
  // A LUKS1 volume whose keyslots ask for the most iterations there can be:
  // minutes at least.
  void MakeEndless() {
    MustCreate(Words{"--format", "raw", "--encryption", "luks1"} + kFastPbkdf2 +
               Words{"disk", "1M"});
    Bytes disk = ReadHostFile(folder_ / "disk");
    constexpr uint64_t kIterationsOfSlot0 = 212;
    StoreNumber(disk, kIterationsOfSlot0, 4, UINT32_MAX);
    WriteHostFile(folder_ / "disk", disk);
  }
};

TEST_F(HostileKdfTest, MemoryAboveTheLimitIsRefusedWithTheRemedy) {
  MakeWith40MiB();
  const std::vector<Words> commands = {
      {"export", "--key-file", "key", "disk", "copy"},
      {"mount", "--key-file", "key", "disk", folder_.path().native()},
      {"import", "--key-file", "key", "key", "disk"},
      {"key", "add", "--key-file", "key", "--new-key-file", "key", "disk"},
  };
  for (const Words& command : commands) {
    const ProgramResult refused =
        RunPellucid(command + Words{"--max-kdf-memory", "39M"});
    EXPECT_EQ(refused.exit_code, 7) << command[0];
    EXPECT_THAT(refused.err, StartsWith("pellucid: disk: keyslot 0 was not "));
    EXPECT_THAT(refused.err, HasSubstr("(argon2id) takes 40M of memory, above "
                                       "the 39M that is allowed"));
    EXPECT_THAT(refused.err, HasSubstr("--max-kdf-memory 40M"));
  }
  EXPECT_FALSE(Exists("copy"));
  const ProgramResult opened =
      RunPellucid({"export", "--key-file", "key", "--max-kdf-memory", "40M",
                   "disk", "copy"});
  EXPECT_EQ(opened.exit_code, 0) << opened.err;
}

TEST_F(HostileKdfTest, WhatIsNoSizeIsRefused) {
  MakeWith40MiB();
  const ProgramResult result =
      RunPellucid({"export", "--key-file", "key", "--max-kdf-memory", "much",
                   "disk", "copy"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("--max-kdf-memory"));
}

TEST_F(HostileKdfTest, AnEndlessDerivationEndsAtCtrlC) {
  MakeEndless();
  // The process that a mount waits for ends by the signal, and it says so.
  const std::vector<std::pair<Words, int>> commands = {
      {{"export", "disk", "copy"}, 128 + SIGINT},
      {{"mount", "disk", folder_.path().native()}, 1},
      {{"import", "key", "disk"}, 128 + SIGINT},
      {{"key", "remove", "disk"}, 128 + SIGINT},
  };
  for (const auto& [command, exit_code] : commands) {
    ProgramOnTerminal program(Words{PELLUCID_PROGRAM} + command,
                              folder_.path());
    program.WaitFor("Passphrase for disk: ");
    program.Type(std::string(kPassphrase) + "\n");
    // In the middle of it.
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    program.Type("\x03");
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(program.WaitForEnd(), exit_code) << program.screen();
    EXPECT_LT(std::chrono::steady_clock::now() - begin,
              std::chrono::seconds(10));
  }
}

}  // namespace
}  // namespace pellucid
