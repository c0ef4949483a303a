// The places besides plain key files and the terminal that a passphrase comes
// from: parts of key files, descriptors, the kernel keyring, credentials, and
// the volume key itself.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/keyctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/program_options.hpp>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tools/kernel_keyring.h"
#include "tools/key_files.h"
#include "tools/open_arguments.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string Text(const crypto::SecretBytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.bytes().data()), bytes.size()};
}

class PassphraseSourcesTest : public testing::Test {
 protected:
  std::string File(const std::string& name, std::string_view content) {
    WriteHostFile(folder_ / name, content);
    return (folder_ / name).string();
  }

  // The source that these command line words make.
  static std::unique_ptr<PassphraseSource> Source(
      const std::vector<std::string>& words) {
    OpenArguments arguments;
    po::options_description options;
    arguments.AddTo(options);
    po::variables_map values;
    po::store(po::command_line_parser(words).options(options).run(), values);
    po::notify(values);
    OpenOptions named;
    named.image = "layer";
    named.header = "header";
    return arguments.MakePassphraseSource(named);
  }

  static std::vector<std::string> AllOffered(PassphraseSource& source,
                                             std::string_view layer = "layer") {
    std::vector<std::string> offered;
    for (unsigned attempt = 0;; ++attempt) {
      const auto passphrase = source.Get(layer, attempt);
      if (!passphrase) return offered;
      offered.push_back(Text(*passphrase));
    }
  }

  ScratchFolder folder_;
};

TEST_F(PassphraseSourcesTest, APartOfAKeyFileIsUsed) {
  const std::string key = File("key", "0123456789\n");
  EXPECT_EQ(Text(ReadKeyFile(key, {.offset = 3, .size = 4})), "3456");
  EXPECT_EQ(Text(ReadKeyFile(key, {.offset = 9, .size = std::nullopt})), "9\n");
  EXPECT_EQ(Text(ReadKeyFile(key, {.offset = 0, .size = 11})), "0123456789\n");
  const auto source = Source(
      {"--key-file", key, "--key-file-offset", "2", "--key-file-size", "3"});
  EXPECT_THAT(AllOffered(*source), testing::ElementsAre("234"));
}

TEST_F(PassphraseSourcesTest, APartBehindTheEndOfTheKeyFileIsRefused) {
  const std::string key = File("key", "0123456789");
  for (const KeyFilePart& part :
       {KeyFilePart{.offset = 11, .size = std::nullopt},
        KeyFilePart{.offset = 0, .size = 11},
        KeyFilePart{.offset = 8, .size = 3}}) {
    EXPECT_THAT([&] { ReadKeyFile(key, part); },
                ThrowsMessage<UsageError>(HasSubstr("ends before the part")));
  }
  EXPECT_THAT([&] { ReadKeyFile(key, {.offset = 9 << 20, .size = 1}); },
              ThrowsMessage<UsageError>(HasSubstr("at most 8 MiB")));
}

TEST_F(PassphraseSourcesTest, ADescriptorGivesItsFirstLineAndKeepsTheRest) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const std::string text = "first line\nsecond\n";
  ASSERT_EQ(write(ends[1], text.data(), text.size()),
            static_cast<ssize_t>(text.size()));
  close(ends[1]);
  EXPECT_EQ(Text(ReadPassphraseLine(ends[0])), "first line");
  EXPECT_EQ(Text(ReadPassphraseLine(ends[0])), "second");
  EXPECT_EQ(ReadPassphraseLine(ends[0]).size(), 0u);  // At the end.
  close(ends[0]);
  EXPECT_THROW(ReadPassphraseLine(ends[0]), IoError);
}

TEST_F(PassphraseSourcesTest, TheKernelKeyringHoldsAPassphrase) {
  const std::string description = "pellucid-test-" + std::to_string(getpid());
  const std::string secret = "kept by the kernel";
  const long key =
      syscall(SYS_add_key, "user", description.c_str(), secret.data(),
              secret.size(), KEY_SPEC_PROCESS_KEYRING);
  ASSERT_GT(key, 0) << "this test needs the kernel's key management";
  EXPECT_EQ(Text(ReadKeyringKey(description)), secret);
  EXPECT_THAT(AllOffered(*Source({"--keyring", description})),
              testing::ElementsAre(secret));
  EXPECT_THAT([&] { ReadKeyringKey(description + "-not"); },
              ThrowsMessage<UsageError>(HasSubstr("keyctl padd")));
}

TEST_F(PassphraseSourcesTest, ACredentialOfSystemdIsUsedUnlessASourceIsNamed) {
  File("pellucid.passphrase", "from systemd");
  ASSERT_EQ(setenv("CREDENTIALS_DIRECTORY", folder_.path().c_str(), 1), 0);
  const auto by_itself = AllOffered(*Source({}));
  const auto named =
      AllOffered(*Source({"--key-file", File("key", "from a file")}));
  unsetenv("CREDENTIALS_DIRECTORY");
  EXPECT_THAT(by_itself, testing::ElementsAre("from systemd"));
  EXPECT_THAT(named, testing::ElementsAre("from a file"));
}

// Whichever layer asks first: an overlay may be plain, and below the volume of
// a detached header its payload's backing images are unlocked before it.
TEST_F(PassphraseSourcesTest, BackingKeyFilesGoToBackingImagesOnly) {
  const auto source = Source({"--key-file", File("top", "top"),
                              "--backing-key-file", File("base", "base")});
  EXPECT_THAT(AllOffered(*source, "base.qcow2"),
              testing::ElementsAre("base", "top"));
  EXPECT_THAT(AllOffered(*source), testing::ElementsAre("top"));
  EXPECT_THAT(AllOffered(*source, "header"), testing::ElementsAre("top"));
}

TEST_F(PassphraseSourcesTest, TheImageItselfMayHaveAnotherSource) {
  const std::vector<std::string> words = {"--backing-key-file",
                                          File("base", "base")};
  File("pellucid.passphrase", "from systemd");
  ASSERT_EQ(setenv("CREDENTIALS_DIRECTORY", folder_.path().c_str(), 1), 0);
  const auto source = Source(words);
  unsetenv("CREDENTIALS_DIRECTORY");
  EXPECT_THAT(AllOffered(*source), testing::ElementsAre("from systemd"));
  EXPECT_THAT(AllOffered(*source, "base.qcow2"),
              testing::ElementsAre("base", "from systemd"));
}

TEST_F(PassphraseSourcesTest, TheVolumeKeyIsOfferedToTheFirstVolumeOnly) {
  const std::string key("\0\1\2\3\n", 5);
  const auto source = Source({"--volume-key-file", File("vk", key),
                              "--key-file", File("key", "passphrase")});
  const auto offered = source->GetVolumeKey("first");
  ASSERT_TRUE(offered);
  EXPECT_EQ(Text(*offered), key);
  EXPECT_FALSE(source->GetVolumeKey("second"));
  EXPECT_THAT(AllOffered(*source), testing::ElementsAre("passphrase"));
}

TEST_F(PassphraseSourcesTest, StandardInputServesOnce) {
  EXPECT_THAT(
      [&] {
        Source({"--key-file", "-", "--backing-key-file", "-"});
      },
      ThrowsMessage<UsageError>(HasSubstr("once only")));
}

}  // namespace
}  // namespace pellucid::cli
