// Images of QEMU and cryptsetup (tests/images/README.md), mounted by the
// program and judged by hashes that were known beforehand.

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/open_image.h"
#include "tests/engine/manifest_fixture.h"
#include "tests/fuse/program_fixture.h"

namespace pellucid::fuse {
namespace {

std::vector<RealImage> ImagesThatOpen() {
  std::vector<RealImage> images;
  for (RealImage& image :
       RealImagesOf({"none", "aes", "luks", "luks1", "luks2"})) {
    if (!image.must_be_refused) images.push_back(std::move(image));
  }
  return images;
}

std::string FormatName(ContainerFormat format) {
  switch (format) {
    case ContainerFormat::kRaw:
      return "raw";
    case ContainerFormat::kQcow2:
      return "qcow2";
    case ContainerFormat::kAuto:
      break;
  }
  return "auto";
}

class ProgramImagesTest : public ProgramTest,
                          public ::testing::WithParamInterface<RealImage> {
 protected:
  // The command line that opens the image, without mountpoint.
  std::vector<std::string> MountArguments() const {
    const std::filesystem::path unpacked = Unpack(GetParam());
    const OpenOptions options = GetParam().options(unpacked);
    std::vector<std::string> arguments = {
        "mount",           "--read-only",
        "--format",        FormatName(options.format),
        "--header-format", FormatName(options.header_format)};
    if (!options.header.empty()) {
      arguments.insert(arguments.end(), {"--header", options.header.string()});
    }
    if (GetParam().secret && GetParam().secret->keyslot) {
      arguments.insert(
          arguments.end(),
          {"--keyslot", std::to_string(*GetParam().secret->keyslot)});
    }
    int number = 0;
    for (const std::string& secret : GetParam().AllSecrets(unpacked)) {
      arguments.insert(
          arguments.end(),
          {"--key-file", MakeFile(fmt::format("key{}", number++), secret)});
    }
    arguments.push_back(options.image.string());
    return arguments;
  }

  // Says nothing but of the image whose content is random bytes only, which
  // looks as if the header were another's.
  void MustMount(const std::vector<std::string>& arguments) const {
    const ProgramResult result = Pellucid(arguments);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    if (GetParam().id == "luks2-det-4k-qcow2" && !result.err.empty()) {
      EXPECT_NE(result.err.find("looks random"), std::string::npos);
      EXPECT_EQ(std::ranges::count(result.err, '\n'), 1);
    } else {
      EXPECT_EQ(result.err, "");
    }
    EXPECT_EQ(result.out, "");
  }

  // Mounts at both kinds of mountpoint and compares with what is known.
  void ExpectContent(std::vector<std::string> arguments,
                     const ExpectedContent& expected) const {
    for (const bool in_directory : {false, true}) {
      const std::filesystem::path mountpoint =
          in_directory ? directory() : file();
      arguments.push_back(mountpoint.string());
      ASSERT_NO_FATAL_FAILURE(MustMount(arguments));
      arguments.pop_back();
      const Bytes content = ReadHostFile(in_directory ? disk() : mountpoint);
      EXPECT_EQ(content.size(), expected.virtual_size);
      EXPECT_EQ(Sha256(content), expected.sha256);
      MustRun({"umount", mountpoint.string()});
    }
  }
};

TEST_P(ProgramImagesTest, MountHasTheKnownContent) {
  ExpectContent(MountArguments(), GetParam().active);
}

TEST_P(ProgramImagesTest, MountOfEachSnapshotHasTheKnownContent) {
  for (const ExpectedContent& snapshot : GetParam().snapshots) {
    std::vector<std::string> arguments = MountArguments();
    arguments.insert(arguments.end() - 1, {"--snapshot", snapshot.snapshot_id});
    ExpectContent(arguments, snapshot);
  }
}

INSTANTIATE_TEST_SUITE_P(, ProgramImagesTest,
                         ::testing::ValuesIn(ImagesThatOpen()),
                         [](const auto& info) { return TestName(info.param); });

}  // namespace
}  // namespace pellucid::fuse
