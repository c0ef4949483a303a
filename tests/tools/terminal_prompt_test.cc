// Passphrases typed on a terminal.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <string>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"
#include "tests/tools/terminal_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;
using testing::Not;

class TerminalPromptTest : public EncryptedImageTest {
 protected:
  static constexpr const char* kLuks =
      "encrypt.format=luks,encrypt.iter-time=10";

  ProgramOnTerminal Export(const std::string& image = "disk.qcow2") {
    return {{PELLUCID_PROGRAM, "export", image, "copy.raw"}, folder_.path()};
  }

  bool CopyIsThere() { return std::filesystem::exists(folder_ / "copy.raw"); }
};

TEST_F(TerminalPromptTest, ThePassphraseIsNotShown) {
  MakeImage("disk.qcow2");
  ProgramOnTerminal program = Export();
  program.WaitFor("Passphrase for disk.qcow2: ");
  EXPECT_FALSE(program.Echoes());
  program.Type(std::string(kPassphrase) + "\n");
  EXPECT_EQ(program.WaitForEnd(), 0) << program.screen();
  EXPECT_THAT(program.screen(), Not(HasSubstr(std::string(kPassphrase))));
  EXPECT_TRUE(ReadHostFile(folder_ / "copy.raw") == Plaintext());
}

TEST_F(TerminalPromptTest, ThereAreThreeTries) {
  MakeImage("disk.qcow2");
  ProgramOnTerminal program = Export();
  program.WaitFor("Passphrase for disk.qcow2: ");
  program.Type("wrong\n");
  program.WaitFor("wrong passphrase");
  program.WaitFor("Passphrase for disk.qcow2: ");
  program.Type("\n");
  program.WaitFor("wrong passphrase");
  program.WaitFor("Passphrase for disk.qcow2: ");
  EXPECT_FALSE(program.Echoes());
  program.Type("wrong again\n");
  EXPECT_EQ(program.WaitForEnd(), 3);
  EXPECT_THAT(program.screen(), Not(HasSubstr("wrong again")));
  EXPECT_FALSE(CopyIsThere());
}

TEST_F(TerminalPromptTest, TheThirdTryCounts) {
  MakeImage("disk.qcow2");
  ProgramOnTerminal program = Export();
  for (const std::string_view passphrase :
       {std::string_view("one"), std::string_view("two"), kPassphrase}) {
    program.WaitFor("Passphrase for disk.qcow2: ");
    program.Type(std::string(passphrase) + "\n");
  }
  EXPECT_EQ(program.WaitForEnd(), 0) << program.screen();
}

TEST_F(TerminalPromptTest, OnePassphraseServesAllLayers) {
  MakeImage("base.qcow2");
  MakeImage("disk.qcow2",
            std::string("backing_file=base.qcow2,backing_fmt=qcow2,") + kLuks);
  ProgramOnTerminal program = Export();
  program.WaitFor("Passphrase for disk.qcow2: ");
  program.Type(std::string(kPassphrase) + "\n");
  EXPECT_EQ(program.WaitForEnd(), 0) << program.screen();
  EXPECT_THAT(program.screen(), Not(HasSubstr("base.qcow2")));
}

TEST_F(TerminalPromptTest, AnotherLayerMayHaveAnotherPassphrase) {
  MakeImage("base.qcow2", kLuks, "of the base");
  MakeImage("disk.qcow2",
            std::string("backing_file=base.qcow2,backing_fmt=qcow2,") + kLuks);
  ProgramOnTerminal program = Export();
  program.WaitFor("Passphrase for disk.qcow2: ");
  program.Type(std::string(kPassphrase) + "\n");
  program.WaitFor("Passphrase for base.qcow2: ");
  EXPECT_THAT(program.screen(), Not(HasSubstr("wrong passphrase")));
  program.Type("of the base\n");
  EXPECT_EQ(program.WaitForEnd(), 0) << program.screen();
}

TEST_F(TerminalPromptTest, OnlyTheImageIsAskedForIfTheRestHasKeyFiles) {
  MakeImage("base.qcow2", kLuks, "of the base");
  MakeImage("disk.qcow2",
            std::string("backing_file=base.qcow2,backing_fmt=qcow2,") + kLuks);
  const std::string key = KeyFile("of the base");
  ProgramOnTerminal program({PELLUCID_PROGRAM, "export", "--backing-key-file",
                             key, "disk.qcow2", "copy.raw"},
                            folder_.path());
  program.WaitFor("Passphrase for disk.qcow2: ");
  program.Type(std::string(kPassphrase) + "\n");
  EXPECT_EQ(program.WaitForEnd(), 0) << program.screen();
  EXPECT_TRUE(CopyIsThere());
  // Nor is a plain image, and the file is for what is below it.
  MakeImage("plain.qcow2", "backing_file=base.qcow2,backing_fmt=qcow2");
  const ProgramResult plain = RunPellucid(
      {"export", "--backing-key-file", key, "plain.qcow2", "copy.plain"});
  EXPECT_EQ(plain.exit_code, 0) << plain.err;
}

TEST_F(TerminalPromptTest, SignalsLeaveTheTerminalAsItWas) {
  MakeImage("disk.qcow2");
  for (const int signal_number : {SIGTERM, SIGHUP, SIGQUIT, SIGINT}) {
    ProgramOnTerminal program = Export();
    program.WaitFor("Passphrase for disk.qcow2: ");
    EXPECT_FALSE(program.Echoes());
    // The keys, where there are some.
    if (signal_number == SIGINT) {
      program.Type("half\x03");
    } else {
      program.Signal(signal_number);
    }
    EXPECT_EQ(program.WaitForEnd(), 128 + signal_number);
    EXPECT_TRUE(program.Echoes());
    EXPECT_FALSE(CopyIsThere());
  }
}

TEST_F(TerminalPromptTest, AStoppedProgramAsksAgainWhenItGoesOn) {
  MakeImage("disk.qcow2");
  // Only what a shell has started can be stopped: somebody must continue it.
  ProgramOnTerminal program(
      {"bash", "-mc",
       "\"$0\" export disk.qcow2 copy.raw; echo stopped; read -r; fg",
       PELLUCID_PROGRAM},
      folder_.path());
  program.WaitFor("Passphrase for disk.qcow2: ");
  program.Type("half\x1a");
  program.WaitFor("stopped");
  EXPECT_TRUE(program.Echoes());
  program.Type("\n");
  program.WaitFor("Passphrase for disk.qcow2: ");
  EXPECT_FALSE(program.Echoes());
  program.Type(std::string(kPassphrase) + "\n");
  EXPECT_EQ(program.WaitForEnd(), 0) << program.screen();
  EXPECT_TRUE(CopyIsThere());
}

TEST_F(TerminalPromptTest, CtrlDGivesUp) {
  MakeImage("disk.qcow2");
  ProgramOnTerminal program = Export();
  program.WaitFor("Passphrase for disk.qcow2: ");
  program.Type("\x04");
  EXPECT_EQ(program.WaitForEnd(), 3);
  EXPECT_FALSE(CopyIsThere());
}

TEST_F(TerminalPromptTest, AProgressBarShowsOnATerminalOnly) {
  MakeImage("disk.qcow2", "compat=1.1");
  ProgramOnTerminal program(
      {"bash", "-c", "\"$0\" export disk.qcow2 - | (sleep 1; cat) >/dev/null",
       PELLUCID_PROGRAM},
      folder_.path());
  EXPECT_EQ(program.WaitForEnd(), 0);
  EXPECT_THAT(program.screen(), HasSubstr("of 64 MiB"));
  ProgramOnTerminal quiet(
      {"bash", "-c",
       "\"$0\" export --quiet disk.qcow2 - | (sleep 1; cat) >/dev/null",
       PELLUCID_PROGRAM},
      folder_.path());
  EXPECT_EQ(quiet.WaitForEnd(), 0);
  EXPECT_EQ(quiet.screen(), "");
}

}  // namespace
}  // namespace pellucid
