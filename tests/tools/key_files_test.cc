#include "tools/key_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"

namespace pellucid::cli {
namespace {

std::string Text(const crypto::SecretBytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.bytes().data()), bytes.size()};
}

class KeyFilesTest : public testing::Test {
 protected:
  // Makes a key file with this content.
  std::string File(const std::string& name, std::string_view content) {
    WriteHostFile(folder_ / name, content);
    return (folder_ / name).string();
  }

  // What a layer is offered if it accepts `right`; all there is if none.
  static std::vector<std::string> Offered(KeyFiles& files,
                                          const std::string& right) {
    std::vector<std::string> offered;
    for (unsigned attempt = 0;; ++attempt) {
      const auto passphrase = files.Get("layer", attempt);
      if (!passphrase) return offered;
      offered.push_back(Text(*passphrase));
      if (offered.back() == right) {
        files.Accepted();
        return offered;
      }
    }
  }

  ScratchFolder folder_;
};

TEST_F(KeyFilesTest, EveryByteCounts) {
  const std::string content("a\0b\xff\r\n\n", 7);
  EXPECT_EQ(Text(ReadKeyFile(File("key", content))), content);
  EXPECT_EQ(Text(ReadKeyFile(File("newline", "\n"))), "\n");
  EXPECT_EQ(ReadKeyFile(File("empty", "")).size(), 0u);
}

TEST_F(KeyFilesTest, SizesAroundTheBuffersAreReadWhole) {
  for (const size_t size : {size_t{4095}, size_t{4096}, size_t{4097},
                            size_t{8192}, size_t{100000}}) {
    std::string content(size, 'k');
    content.back() = 'e';
    EXPECT_EQ(Text(ReadKeyFile(File("key", content))), content) << size;
  }
}

TEST_F(KeyFilesTest, EightMebibytesAreTheLimit) {
  EXPECT_EQ(ReadKeyFile(File("key", std::string(kMaxKeyFileSize, 'k'))).size(),
            kMaxKeyFileSize);
  EXPECT_THROW(ReadKeyFile(File("key", std::string(kMaxKeyFileSize + 1, 'k'))),
               UsageError);
  EXPECT_THROW(ReadKeyFile("/dev/zero"), UsageError);
}

TEST_F(KeyFilesTest, ErrorsNameTheFile) {
  const auto error_of = [](const std::string& path) {
    try {
      ReadKeyFile(path);
    } catch (const IoError& error) {
      return std::make_pair(error.host_errno(), std::string(error.what()));
    }
    return std::make_pair(0, std::string());
  };
  const std::string missing = (folder_ / "missing").string();
  EXPECT_EQ(error_of(missing),
            std::make_pair(ENOENT, missing + ": No such file or directory"));
  const std::string folder = folder_.path().string();
  EXPECT_EQ(error_of(folder),
            std::make_pair(EISDIR, folder + ": Is a directory"));
}

TEST_F(KeyFilesTest, AreTriedInTheirOrder) {
  KeyFiles files({File("a", "one"), File("b", "two"), File("c", "three")});
  EXPECT_THAT(Offered(files, "none"),
              testing::ElementsAre("one", "two", "three"));
}

TEST_F(KeyFilesTest, OneServesAllLayers) {
  KeyFiles files({File("a", "one")});
  for (int layer = 0; layer < 3; ++layer) {
    EXPECT_THAT(Offered(files, "one"), testing::ElementsAre("one"));
  }
}

// Legacy AES takes whatever comes first.
TEST_F(KeyFilesTest, OnePerLayerFitLayersThatCannotTell) {
  KeyFiles files({File("a", "top"), File("b", "middle"), File("c", "base")});
  EXPECT_THAT(Offered(files, "top"), testing::ElementsAre("top"));
  EXPECT_THAT(Offered(files, "middle"), testing::ElementsAre("middle"));
  EXPECT_THAT(Offered(files, "base"), testing::ElementsAre("base"));
}

TEST_F(KeyFilesTest, AcceptedOnesComeAgainAtTheEnd) {
  KeyFiles files({File("a", "one"), File("b", "two"), File("c", "three")});
  EXPECT_THAT(Offered(files, "two"), testing::ElementsAre("one", "two"));
  EXPECT_THAT(Offered(files, "none"),
              testing::ElementsAre("one", "three", "two"));
}

TEST_F(KeyFilesTest, AreReadWhenNeededAndOnce) {
  const std::string second = (folder_ / "missing").string();
  KeyFiles files({File("a", "one"), second});
  EXPECT_THAT(Offered(files, "one"), testing::ElementsAre("one"));
  File("a", "changed");
  EXPECT_THROW(files.Get("layer", 0), IoError);
  EXPECT_EQ(Text(*files.Get("layer", 1)), "one");
}

}  // namespace
}  // namespace pellucid::cli
