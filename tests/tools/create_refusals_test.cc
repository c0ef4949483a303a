// What `pellucid create` refuses to do, and what it leaves when it fails.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/tools/create_fixture.h"
#include "tests/tools/terminal_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;
using testing::Not;

using CreateRefusalsTest = CreateTest;

TEST_F(CreateRefusalsTest, ABackingFileIsNotOverwritten) {
  MustCreate({"--encryption", "none", "base.qcow2", "1M"});
  MustCreate({"--encryption", "none", "--backing", "base.qcow2",
              "--backing-format", "qcow2", "top.qcow2"});
  const Bytes before = ReadHostFile(folder_ / "base.qcow2");
  ExpectRefused({"--force", "--backing", "top.qcow2", "--backing-format",
                 "qcow2", "base.qcow2"},
                "base.qcow2: belongs to the backing file");
  EXPECT_TRUE(ReadHostFile(folder_ / "base.qcow2") == before);
  ExpectRefused({"--backing", "missing", "--backing-format", "raw", "new"},
                "missing: ", 7);
}

TEST_F(CreateRefusalsTest, OverwritesOnlyWhenForced) {
  WriteHostFile(folder_ / "there", "precious");
  const auto content = [&] { return ReadHostFile(folder_ / "there").size(); };
  for (const Words& arguments :
       {Words{"there", "1M"}, Words{"--format", "raw", "there", "1M"},
        Words{"--detached-header", "there", "new", "1M"},
        Words{"--detached-header", "hdr", "there", "1M"}}) {
    ExpectRefused(arguments, "there: exists already; --force overwrites it");
    EXPECT_EQ(content(), 8U);
  }
  MustCreate(Words{"--force", "there", "1M"} + kFastPbkdf2);
  EXPECT_EQ(Export({"--key-file", "key", "there"}).size(), 1U << 20);
  ExpectRefused({"--force", "key", "1M"}, "key: is the key file");
  ExpectRefused({"--force", "--detached-header", "key", "new", "1M"},
                "key: is the key file");
  std::filesystem::create_directory(folder_ / "folder");
  ExpectRefused({"--force", "folder", "1M"}, "folder: is a directory");
}

TEST_F(CreateRefusalsTest, WhatAnotherProgramUsesStaysAsItIs) {
  Run({"qemu-img", "create", "-q", "-f", "qcow2", "used", "1M"});
  WriteHostFile(folder_ / "old", "old header");
  const Bytes before = ReadHostFile(folder_ / "used");
  {
    const BackgroundProgram qemu({"stdbuf", "-oL", "qemu-io", "-c", "length",
                                  "-c", "sleep 60000", folder_ / "used"},
                                 "1 MiB");
    ExpectRefused({"--force", "used", "1M"}, "used: ", 6);
    ExpectRefused({"--force", "--detached-header", "old", "used", "1M"},
                  "used: ", 6);
    ExpectRefused({"--force", "--detached-header", "used", "old", "1M"},
                  "used: ", 6);
    EXPECT_TRUE(ReadHostFile(folder_ / "used") == before);
    EXPECT_EQ(ReadHostFile(folder_ / "old").size(), 10U);
  }
  MustCreate(Words{"--force", "used", "2M"} + kFastPbkdf2);
}

TEST_F(CreateRefusalsTest, WhatFailsLeavesNothing) {
  // The header cannot be made.
  ExpectRefused({"--detached-header", "missing/hdr", "new", "1M"},
                "missing/hdr: ", 7);
  // The image becomes larger than files may be.
  WriteHostFile(folder_ / "old", "precious");
  for (const char* format : {"raw", "qcow2"}) {
    const ProgramResult result = RunProgram(
        {"sh", "-c",
         "ulimit -f 1000; for f in new old; do \"$0\" create --key-file key "
         "--iter-time 10 --format \"$1\" --encryption luks1 --force $f 10M; "
         "done",
         PELLUCID_PROGRAM, format},
        "", folder_.path());
    EXPECT_EQ(result.exit_code, 7) << result.err;
    EXPECT_THAT(result.err, HasSubstr("new: cannot "));
    EXPECT_THAT(result.err, HasSubstr("old: cannot "));
    EXPECT_THAT(result.err, HasSubstr("File too large"));
    EXPECT_FALSE(Exists("new"));
    EXPECT_EQ(ReadHostFile(folder_ / "old").size(), 8U);
  }
}

TEST_F(CreateRefusalsTest, AnInterruptLeavesNothing) {
  const ProgramResult result = RunProgram(
      {"sh", "-c",
       "\"$0\" create --key-file key --iter-time 3000 --detached-header hdr "
       "new 10M & p=$!; while ! [ -s hdr ]; do sleep 0.05; done; "
       "kill -TERM $p; wait $p",
       PELLUCID_PROGRAM},
      "", folder_.path());
  EXPECT_EQ(result.exit_code, 128 + 15) << result.err;
  EXPECT_FALSE(Exists("new"));
  EXPECT_FALSE(Exists("hdr"));
}

TEST_F(CreateRefusalsTest, ThePassphraseIsTypedTwice) {
  ProgramOnTerminal program(
      {PELLUCID_PROGRAM, "create", "--iter-time", "10", "new", "1M"},
      folder_.path());
  program.WaitFor("New passphrase for new: ");
  EXPECT_FALSE(program.Echoes());
  program.Type("\n");
  program.WaitFor("An empty passphrase protects nothing");
  program.WaitFor("New passphrase for new: ");
  program.Type("open sesame\n");
  program.WaitFor("The same again: ");
  program.Type("open sesamy\n");
  program.WaitFor("The two differ");
  program.WaitFor("New passphrase for new: ");
  EXPECT_FALSE(Exists("new"));
  program.Type("open sesame\n");
  program.WaitFor("The same again: ");
  program.Type("open sesame\n");
  EXPECT_EQ(program.WaitForEnd(), 0) << program.screen();
  EXPECT_THAT(program.screen(), Not(HasSubstr("sesam")));
  EXPECT_EQ(Export({"--key-file", "key", "new"}).size(), 1U << 20);
}

TEST_F(CreateRefusalsTest, ADifferingPassphraseEndsIt) {
  ProgramOnTerminal program({PELLUCID_PROGRAM, "create", "new", "1M"},
                            folder_.path());
  for (int i = 0; i < 3; ++i) {
    program.WaitFor("New passphrase for new: ");
    program.Type("one\n");
    program.WaitFor("The same again: ");
    program.Type("two\n");
  }
  EXPECT_EQ(program.WaitForEnd(), 2);
  EXPECT_FALSE(Exists("new"));
}

TEST_F(CreateRefusalsTest, WithoutATerminalAKeyFileIsNeeded) {
  const ProgramResult result = Create({"new", "1M"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("--key-file"));
  EXPECT_FALSE(Exists("new"));
  KeyFile("", "empty");
  EXPECT_THAT(Create({"--key-file", "empty", "new", "1M"}).err,
              HasSubstr("empty: the key file is empty"));
  // Standard input is one as well.
  EXPECT_EQ(RunPellucid(
                {"create", "--key-file", "-", "--iter-time", "10", "new", "1M"},
                kPassphrase)
                .exit_code,
            0);
  EXPECT_EQ(Export({"--key-file", "key", "new"}).size(), 1U << 20);
}

TEST_F(CreateRefusalsTest, WhatDoesNotGoTogetherIsRefused) {
  const std::vector<std::pair<Words, std::string>> refusals = {
      {{"new"}, "needs a SIZE above 0"},
      {{"new", "0"}, "needs a SIZE above 0"},
      {{"new", "10X"}, "--SIZE takes a size"},
      {{"new", "7E"}, "a larger cluster size reaches further"},
      {{"--cluster-size", "2M", "new", "7E"}, "they reach up to"},
      {{"--format", "raw", "new", "9223372036854775807"}, "are too many"},
      {{"--format", "vmdk", "new", "1M"}, "one of qcow2, raw"},
      {{"--encryption", "aes", "new", "1M"}, "one of luks1, luks2, none"},
      {{"--encryption", "luks2", "new", "1M"}, "LUKS2 cannot be embedded"},
      {{"--encryption", "none", "new", "1M"}, "--key-file is for encryption"},
      {{"--label", "x", "new", "1M"}, "--label is for --encryption luks2"},
      {{"--sector-size", "4096", "new", "1M"}, "--sector-size is for"},
      {{"--kdf", "argon2id", "new", "1M"}, "--kdf argon2id is for"},
      {{"--argon2-time", "4", "new", "1M"}, "--argon2-time is for"},
      {{"--format", "raw", "--kdf", "pbkdf2", "--argon2-time", "4", "new",
        "1M"},
       "--argon2-time is for --kdf argon2id"},
      {{"--format", "raw", "--pbkdf2-iterations", "1000", "new", "1M"},
       "--pbkdf2-iterations is for --kdf pbkdf2"},
      {{"--format", "raw", "--cluster-size", "64K", "new", "1M"},
       "--cluster-size is for --format qcow2"},
      {{"--format", "raw", "--backing", "b", "new", "1M"},
       "--backing is for --format qcow2"},
      {{"--encryption", "none", "--argon2-cpus", "1", "new", "1M"},
       "is for encryption, not for"},
      {{"--format", "raw", "--kdf", "scrypt", "new", "1M"},
       "--kdf takes argon2id, argon2i or pbkdf2"},
      {{"--passphrase-fd", "0", "new", "1M"}, "comes from one place"},
      {{"--keyring", "x", "new", "1M"}, "comes from one place"},
      {{"--key-file-offset", "20", "new", "1M"}, "ends before the part"},
      {{"--backing", "b", "new", "1M"}, "--backing needs --backing-format"},
      {{"--backing-format", "raw", "new", "1M"}, "needs --backing FILE"},
      {{"--backing", "key", "--backing-format", "raw", "--detached-header",
        "hdr", "new", "1M"},
       "would read as noise"},
      {{"--detached-header", "new", "new", "1M"}, "both as the image and as"},
      {{"--payload-exists", "key"}, "needs --detached-header"},
      {{"--payload-exists", "--detached-header", "hdr", "key", "1M"},
       "SIZE '1M' does not go with"},
      {{"--payload-exists", "--detached-header", "hdr", "--format", "raw",
        "key"},
       "--format does not go with"},
      {{"--payload-exists", "--detached-header", "hdr", "key"},
       "key: has 11 bytes, less than one sector"},
      {{"--cluster-size", "3K", "new", "1M"}, "not a power of 2"},
      {{"--refcount-bits", "5", "new", "1M"}, "cannot have 5 bits"},
      {{"--compat", "0.10", "--lazy-refcounts", "new", "1M"}, "need version 3"},
      {{"--cipher", "aes", "new", "1M"}, "such as aes-xts-plain64"},
      {{"--cipher", "rot13-cbc-plain", "new", "1M"}, "\"rot13\""},
      {{"--cipher", "aes-xts-plain65", "new", "1M"}, "\"plain65\""},
      {{"--cipher", "cast5-xts-plain64", "new", "1M"}, "blocks of 16 bytes"},
      {{"--cipher", "aes-cbc-essiv:sha1", "new", "1M"}, "digest of sha1"},
      {{"--key-size", "100", "new", "1M"}, "whole bytes"},
      {{"--cipher", "aes-cbc-plain64", "--key-size", "192", "new", "1M"},
       "QEMU cannot open"},
      {{"--key-size", "1024", "new", "1M"}, "no key of 128 bytes"},
      {{"--hash", "crc32", "new", "1M"}, "\"crc32\""},
      {{"--pbkdf2-iterations", "999", "new", "1M"}, "at least 1000"},
      {{"--pbkdf2-iterations", "0", "new", "1M"}, "a number from 1"},
      {{"--iter-time", "soon", "new", "1M"}, "--iter-time takes a number"},
      {{"--uuid", "mine", "new", "1M"}, "is not a UUID"},
      {{"--format", "raw", "--sector-size", "8192", "new", "1M"},
       "one of 512, 1024, 2048, 4096"},
      {{"--format", "raw", "--label", std::string(48, 'x'), "new", "1M"},
       "takes 47"},
  };
  for (const auto& [arguments, text] : refusals) {
    ExpectRefused(arguments, text);
  }
}

}  // namespace
}  // namespace pellucid
