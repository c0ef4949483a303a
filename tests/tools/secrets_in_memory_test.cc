// What is left of passphrases and volume keys in the memory of the program, in
// its log and in what /proc tells of it, while an image is mounted and at the
// end of every command. Read by way of /proc/PID/mem, as root: that sees all
// that a debugger's core dump has, and the pages that are kept out of dumps
// too.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/keyctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/tools/terminal_fixture.h"
#include "tests/tools/traced_program_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::string TextOf(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// Does `memory` hold 16 bytes of `secret` in a row, from a multiple of 16 on?
bool Holds(std::string_view memory, std::string_view secret) {
  constexpr size_t kPiece = 16;
  for (size_t at = 0; at + kPiece <= secret.size(); at += kPiece) {
    if (memory.find(secret.substr(at, kPiece)) != std::string_view::npos) {
      return true;
    }
  }
  return false;
}

// The mappings of `process` that hold `secret`, as its maps name them.
std::vector<std::string> WhereIs(std::string_view secret, pid_t process) {
  constexpr uint64_t kAtOnce = 1 << 20;
  constexpr uint64_t kOverlap = 64;
  std::vector<std::string> found;
  const auto proc = fmt::format("/proc/{}/", process);
  const int memory = open((proc + "mem").c_str(), O_RDONLY | O_CLOEXEC);
  if (memory < 0) throw std::runtime_error("cannot read the memory");
  std::ifstream maps(proc + "maps");
  uint64_t seen = 0;
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0;
    unsigned long end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) != 2) continue;
    std::string piece(kAtOnce + kOverlap, '\0');
    for (unsigned long at = begin; at < end; at += kAtOnce) {
      const ssize_t got = pread(memory, piece.data(),
                                std::min<uint64_t>(piece.size(), end - at),
                                static_cast<off_t>(at));
      if (got <= 0) break;  // Without the right to read, or the kernel's own.
      seen += static_cast<uint64_t>(got);
      if (!Holds({piece.data(), static_cast<size_t>(got)}, secret)) continue;
      found.push_back(line);
      break;
    }
  }
  close(memory);
  if (seen < 1 << 20) throw std::runtime_error("there was no memory to read");
  return found;
}

class SecretsInMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
#ifdef PELLUCID_SANITIZED
    GTEST_SKIP() << "a sanitizer keeps freed memory";
#endif
    ASSERT_EQ(geteuid(), 0U) << "the memory is for root to read";
    Bytes noise(32);
    std::ifstream random("/dev/urandom", std::ios::binary);
    random.read(reinterpret_cast<char*>(noise.data()), 32);
    passphrase_ = Sha256(noise).substr(0, 48);
    new_passphrase_ = Sha256(Bytes(noise.rbegin(), noise.rend())).substr(0, 48);
    WriteHostFile(folder_ / "key", passphrase_);
    WriteHostFile(folder_ / "new key", new_passphrase_);
    WriteHostFile(folder_ / "mountpoint", "");
    MakeImage("image", {"--encryption", "luks1", "--pbkdf2-iterations", "1000",
                        "--format", "raw"});
    volume_key_ = VolumeKeyOf("image");
  }
  void TearDown() override {
    umount2((folder_ / "mountpoint").c_str(), MNT_DETACH);
  }

  void MakeImage(const std::string& name, std::vector<std::string> options) {
    options.insert(options.begin(),
                   {PELLUCID_PROGRAM, "create", "--key-file", folder_ / "key"});
    options.insert(options.end(), {folder_ / name, "16M"});
    RunTool(options);
  }

  // As cryptsetup finds it.
  std::string VolumeKeyOf(const std::string& image) {
    RunTool({"cryptsetup", "luksDump", "--batch-mode", "--dump-volume-key",
             "--volume-key-file", folder_ / "volume key", "--key-file",
             folder_ / "key", folder_ / image});
    return TextOf(folder_ / "volume key");
  }

  // Mounts by `mount`, and looks.
  void CheckMount(const std::function<void()>& mount) {
    const std::string mountpoint = folder_ / "mountpoint";
    mount();
    std::array<char, 64> value = {};
    ASSERT_GT(getxattr(mountpoint.c_str(), "user.pellucid.pid", value.data(),
                       value.size() - 1),
              0);
    const pid_t server = std::atoi(value.data());
    ASSERT_EQ(ptrace(PTRACE_SEIZE, server, nullptr, PTRACE_O_TRACEEXIT), 0);
    // Use it, also by a write.
    RunTool({"dd", "if=/dev/zero", "of=" + mountpoint, "bs=64k", "count=16",
             "conv=notrunc,fsync", "status=none"});
    // The key must be there, so that to find nothing means something.
    EXPECT_THAT(WhereIs(volume_key_, server), Not(IsEmpty()));
    EXPECT_THAT(WhereIs(passphrase_, server), IsEmpty());
    for (const char* file : {"cmdline", "environ", "comm", "status"}) {
      const std::string told = TextOf(fmt::format("/proc/{}/{}", server, file));
      EXPECT_NE(told, "") << file;
      EXPECT_FALSE(Holds(told, passphrase_)) << file;
      EXPECT_FALSE(Holds(told, volume_key_)) << file;
    }
    EXPECT_THAT(TextOf(fmt::format("/proc/{}/limits", server)),
                testing::ContainsRegex("Max core file size +0 +0 "));
    ASSERT_EQ(umount2(mountpoint.c_str(), 0), 0);
    AwaitExit(server);
    EXPECT_THAT(WhereIs(passphrase_, server), IsEmpty());
    EXPECT_THAT(WhereIs(volume_key_, server), IsEmpty());
    ptrace(PTRACE_DETACH, server, nullptr, 0);
  }
  void CheckMount(const std::vector<std::string>& options,
                  std::string_view input = "") {
    CheckMount([&] {
      std::vector<std::string> argv = {PELLUCID_PROGRAM, "mount"};
      argv.insert(argv.end(), options.begin(), options.end());
      argv.insert(argv.end(), {folder_ / "image", folder_ / "mountpoint"});
      const ProgramResult result = RunProgram(argv, input, folder_.path());
      ASSERT_EQ(result.exit_code, 0) << result.err;
      EXPECT_FALSE(Holds(result.err + result.out, passphrase_));
    });
  }

  // Runs a program to a good end; `look` is called just before.
  void MustRunAndLook(const std::vector<std::string>& argv,
                      const std::function<void(pid_t)>& look) {
    EXPECT_EQ(RunAndLook(argv, folder_ / "output", look), 0)
        << TextOf(folder_ / "output");
  }

  // Runs pellucid, in whose memory no secret must be at its end.
  void CheckCommand(std::vector<std::string> argv) {
    SCOPED_TRACE(argv[0] + " " + argv[1]);
    argv.insert(argv.begin(), PELLUCID_PROGRAM);
    MustRunAndLook(argv, [&](pid_t process) {
      for (const std::string& secret :
           {passphrase_, new_passphrase_, volume_key_}) {
        EXPECT_THAT(WhereIs(secret, process), IsEmpty())
            << (secret == volume_key_ ? "volume key" : "passphrase");
      }
    });
    const std::string output = TextOf(folder_ / "output");
    EXPECT_FALSE(Holds(output, passphrase_));
    EXPECT_FALSE(Holds(output, new_passphrase_));
    EXPECT_FALSE(Holds(output, volume_key_));
  }

  ScratchFolder folder_;
  std::string passphrase_;
  std::string new_passphrase_;
  std::string volume_key_;
};

TEST_F(SecretsInMemoryTest, WhatIsThereAtTheEndIsFound) {
  MustRunAndLook({"/bin/true", passphrase_}, [&](pid_t process) {
    EXPECT_THAT(WhereIs(passphrase_, process),
                testing::Contains(HasSubstr("[stack]")));
    EXPECT_THAT(WhereIs(volume_key_, process), IsEmpty());
  });
}

TEST_F(SecretsInMemoryTest, MountWithAKeyFile) {
  CheckMount({"--key-file", folder_ / "key"});
}

TEST_F(SecretsInMemoryTest, MountWithoutSandbox) {
  CheckMount({"--no-sandbox", "--key-file", folder_ / "key"});
}

TEST_F(SecretsInMemoryTest, MountWithStandardInput) {
  CheckMount({"--key-file", "-"}, passphrase_);
}

TEST_F(SecretsInMemoryTest, MountWithADescriptor) {
  CheckMount({"--passphrase-fd", "0"}, passphrase_ + "\nand more");
}

TEST_F(SecretsInMemoryTest, MountWithTheSecondKeyFileThatIsTried) {
  CheckMount(
      {"--key-file", folder_ / "new key", "--key-file", folder_ / "key"});
}

TEST_F(SecretsInMemoryTest, MountWithTheKernelKeyring) {
  const std::string name = fmt::format("pellucid-memory-{}", getpid());
  ASSERT_GT(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr), 0);
  ASSERT_GT(syscall(SYS_add_key, "user", name.c_str(), passphrase_.data(),
                    passphrase_.size(), KEY_SPEC_SESSION_KEYRING),
            0);
  CheckMount({"--keyring", name});
}

TEST_F(SecretsInMemoryTest, MountWithACredentialOfSystemd) {
  WriteHostFile(folder_ / "pellucid.passphrase", passphrase_);
  setenv("CREDENTIALS_DIRECTORY", folder_.path().c_str(), 1);
  CheckMount(std::vector<std::string>());
  unsetenv("CREDENTIALS_DIRECTORY");
}

TEST_F(SecretsInMemoryTest, MountWithTheVolumeKey) {
  CheckMount({"--volume-key-file", folder_ / "volume key"});
}

TEST_F(SecretsInMemoryTest, MountWithATypedPassphrase) {
  CheckMount([&] {
    ProgramOnTerminal program(
        {PELLUCID_PROGRAM, "mount", folder_ / "image", folder_ / "mountpoint"},
        folder_.path());
    program.WaitFor("assphrase");
    program.Type(new_passphrase_ + "\n");  // Mistaken.
    program.WaitFor("assphrase");
    program.Type(passphrase_ + "\n");
    EXPECT_EQ(program.WaitForEnd(), 0) << program.screen();
    EXPECT_FALSE(Holds(program.screen(), passphrase_));
  });
}

TEST_F(SecretsInMemoryTest, MountOfALuks2VolumeWithArgon2) {
  std::filesystem::remove(folder_ / "image");
  MakeImage("image",
            {"--encryption", "luks2", "--format", "raw", "--argon2-time", "4",
             "--argon2-memory", "1024", "--argon2-cpus", "2"});
  std::filesystem::remove(folder_ / "volume key");
  volume_key_ = VolumeKeyOf("image");
  CheckMount({"--key-file", folder_ / "key"});
}

TEST_F(SecretsInMemoryTest, NothingIsLeftAtTheEndOfACommand) {
  const std::string key = folder_ / "key";
  const std::string new_key = folder_ / "new key";
  const std::string image = folder_ / "image";
  CheckCommand({"info", image});
  CheckCommand({"check", image});
  CheckCommand({"export", "--key-file", key, image, folder_ / "plain"});
  CheckCommand({"import", "--key-file", key, folder_ / "plain", image});
  CheckCommand({"key", "list", image});
  CheckCommand({"key", "add", "--key-file", key, "--new-key-file", new_key,
                "--pbkdf2-iterations", "1000", image});
  CheckCommand({"key", "remove", "--key-file", key, "--keyslot", "1", image});
  CheckCommand({"key", "change", "--key-file", key, "--new-key-file", new_key,
                "--pbkdf2-iterations", "1000", image});
  CheckCommand({"header", "backup", image, folder_ / "backup"});
  CheckCommand({"header", "restore", image, folder_ / "backup"});
  CheckCommand({"header", "detach", image, folder_ / "header"});
  CheckCommand({"create", "--key-file", key, "--encryption", "luks2",
                "--format", "raw", "--argon2-time", "4", "--argon2-memory",
                "1024", folder_ / "another", "16M"});
}

}  // namespace
}  // namespace pellucid
