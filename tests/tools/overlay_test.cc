#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;

constexpr char kMarker[] = "THE-KNOWN-PLAINTEXT-OF-THIS-TEST";

class OverlayTest : public EncryptedImageTest {
 protected:
  OverlayTest() {
    KeyFile();
    std::filesystem::create_directory(folder_ / "mnt");
  }
  ~OverlayTest() override { RunPellucid({"umount", "mnt"}); }

  void MustRun(std::vector<std::string> arguments) {
    const ProgramResult result = RunPellucid(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }

  ProgramResult MountOverlay(std::vector<std::string> image,
                             const std::string& overlay = "overlay.qcow2") {
    std::vector<std::string> words = {"mount", "--overlay", overlay,
                                      "--key-file", "key"};
    words.insert(words.end(), image.begin(), image.end());
    words.push_back("mnt");
    return RunPellucid(words);
  }

  std::string Shell(const std::string& script) {
    return RunTool({"bash", "-c", "set -eo pipefail; " + script}, "",
                   folder_.path());
  }

  // Writes the marker through an overlay over `image` (options and name), and
  // checks that `evidence` stays as it is and the overlay tells nothing.
  // `by_qemu` is called while the overlay has the marker in it.
  void CheckKind(const std::vector<std::string>& image,
                 const std::vector<std::string>& evidence,
                 const std::function<void()>& by_qemu) {
    std::vector<std::string> hashes;
    for (const std::string& file : evidence) {
      hashes.push_back(Sha256(ReadHostFile(folder_ / file)));
    }
    const ProgramResult mount = MountOverlay(image);
    ASSERT_EQ(mount.exit_code, 0) << mount.err;
    const std::string before = Shell("sha256sum < mnt/disk");
    std::string marks;
    while (marks.size() < 1000000) marks += kMarker;
    WriteHostFile(folder_ / "marks", marks);
    Shell("dd if=marks of=mnt/disk bs=1000 seek=500 conv=notrunc status=none");
    const std::string after = Shell("sha256sum < mnt/disk");
    EXPECT_NE(after, before);
    MustRun({"umount", "mnt"});

    // The same command finds what was written.
    ASSERT_EQ(MountOverlay(image).exit_code, 0);
    EXPECT_EQ(Shell("sha256sum < mnt/disk"), after);
    EXPECT_THAT(Shell("dd if=mnt/disk bs=1000 skip=500 count=1 status=none"),
                HasSubstr(kMarker));
    MustRun({"umount", "mnt"});

    for (size_t i = 0; i < evidence.size(); ++i) {
      EXPECT_EQ(Sha256(ReadHostFile(folder_ / evidence[i])), hashes[i])
          << evidence[i];
    }
    EXPECT_EQ(Shell(std::string("! grep -c ") + kMarker + " overlay.qcow2"),
              "0\n");
    EXPECT_GT(std::filesystem::file_size(folder_ / "overlay.qcow2"), 1000000u);
    MustRun({"check", "--quiet", "overlay.qcow2"});
    by_qemu();

    // Discarded: all is as it was.
    std::filesystem::remove(folder_ / "overlay.qcow2");
    ASSERT_EQ(MountOverlay(image).exit_code, 0);
    EXPECT_EQ(Shell("sha256sum < mnt/disk"), before);
    MustRun({"umount", "mnt"});
  }
};

TEST_F(OverlayTest, OverAnEncryptedImageItHasAHeaderForTheSamePassphrase) {
  MakeImage("disk.qcow2");
  CheckKind({"disk.qcow2"}, {"disk.qcow2"}, [&] {
    const std::string opened =
        R"(--object secret,id=k,file=key --image-opts driver=qcow2,)"
        R"(file.filename=overlay.qcow2,encrypt.key-secret=k,)"
        R"(backing.driver=qcow2,backing.file.filename=disk.qcow2,)"
        R"(backing.encrypt.key-secret=k )";
    Shell("qemu-img check -q " + opened);
    Shell("qemu-img convert " + opened + "-O raw theirs.raw");
    MustRun({"export", "--key-file", "key", "overlay.qcow2", "ours.raw"});
    Shell("cmp theirs.raw ours.raw");
  });
}

TEST_F(OverlayTest, OverTheImagesOfADetachedHeader) {
  for (const char* format : {"raw", "qcow2"}) {
    SCOPED_TRACE(format);
    MustRun({"create", "--force", "--key-file", "key", "--iter-time", "10",
             "--format", format, "--detached-header", "header", "payload",
             "16M"});
    CheckKind({"--header", "header", "payload"}, {"header", "payload"}, [&] {
      // Ciphertext over ciphertext, which QEMU reads as it is.
      Shell("qemu-img check -q overlay.qcow2");
      Shell("qemu-img convert -O raw overlay.qcow2 theirs.raw");
      MustRun({"export", "--force", "--encryption", "none", "overlay.qcow2",
               "ours.raw"});
      Shell("cmp theirs.raw ours.raw");
    });
    std::filesystem::remove(folder_ / "overlay.qcow2");
  }
}

TEST_F(OverlayTest, OverARawVolume) {
  MustRun({"create", "--key-file", "key", "--iter-time", "10", "--format",
           "raw", "volume", "16M"});
  CheckKind({"volume"}, {"volume"},
            [&] { Shell("qemu-img check -q overlay.qcow2"); });
}

TEST_F(OverlayTest, OverAPlainImageThatStandsOnAnEncryptedOne) {
  MakeImage("base.qcow2");
  RunTool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "base.qcow2",
           "-F", "qcow2", "top.qcow2", "64M"},
          "", folder_.path());
  CheckKind({"top.qcow2"}, {"top.qcow2", "base.qcow2"}, [] {});
}

TEST_F(OverlayTest, AJournalIsReplayedWithoutTouchingTheEvidence) {
  // A file system whose journal is to be replayed: it was copied while mounted.
  Shell(R"(truncate -s 48M fs.raw; mkfs.ext4 -q -E nodiscard fs.raw
           mkdir fs; mount -o loop fs.raw fs; trap 'umount fs' EXIT
           echo kept > fs/file; sync; cp --sparse=never fs.raw dirty.raw)");
  ASSERT_THAT(
      RunProgram({"dumpe2fs", "-h", "dirty.raw"}, "", folder_.path()).out,
      HasSubstr("needs_recovery"));
  MustRun({"create", "--key-file", "key", "--iter-time", "10", "disk.qcow2",
           "48M"});
  MustRun({"import", "--key-file", "key", "dirty.raw", "disk.qcow2"});
  const std::string hash = Sha256(ReadHostFile(folder_ / "disk.qcow2"));
  ASSERT_EQ(MountOverlay({"disk.qcow2"}).exit_code, 0);
  EXPECT_EQ(Shell(R"(mount -o loop mnt/disk fs; trap 'umount fs' EXIT
                     cat fs/file; echo new > fs/second)"),
            "kept\n");
  EXPECT_EQ(RunProgram({"e2fsck", "-f", "-n", "mnt/disk"}, "", folder_.path())
                .exit_code,
            0);
  MustRun({"umount", "mnt"});
  EXPECT_EQ(Sha256(ReadHostFile(folder_ / "disk.qcow2")), hash);
}

TEST_F(OverlayTest, TheEvidenceIsLockedAgainstWriters) {
  MakeImage("disk.qcow2");
  ASSERT_EQ(MountOverlay({"disk.qcow2"}).exit_code, 0);
  const ProgramResult import =
      RunPellucid({"import", "--key-file", "key", "key", "disk.qcow2"});
  EXPECT_EQ(import.exit_code, 6) << import.err;
  MustRun({"umount", "mnt"});
}

TEST_F(OverlayTest, TheExpectedHeaderIsThatOfTheEvidence) {
  MakeImage("disk.qcow2");
  const std::string json = RunPellucid({"info", "--json", "disk.qcow2"}).out;
  const std::string uuid = nlohmann::json::parse(json)["qcow2"]["luks"]["uuid"];
  ASSERT_EQ(MountOverlay({"--expect-uuid", uuid, "disk.qcow2"}).exit_code, 0);
  MustRun({"umount", "mnt"});
  const std::string wrong = "00000000-0000-0000-0000-000000000000";
  EXPECT_EQ(MountOverlay({"--expect-uuid", wrong, "disk.qcow2"}).exit_code, 2);
  EXPECT_EQ(MountOverlay({"--expect-uuid", wrong, "disk.qcow2"}, "new.qcow2")
                .exit_code,
            2);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "new.qcow2"));
}

TEST_F(OverlayTest, AForeignFileIsNoOverlay) {
  MakeImage("disk.qcow2");
  MakeImage("other.qcow2");
  WriteHostFile(folder_ / "text", std::string(1 << 20, 't'));
  ASSERT_EQ(MountOverlay({"disk.qcow2"}).exit_code, 0);
  MustRun({"umount", "mnt"});
  const ProgramResult other = MountOverlay({"other.qcow2"});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr("no overlay of other.qcow2, but of"));
  const ProgramResult itself = MountOverlay({"disk.qcow2"}, "disk.qcow2");
  EXPECT_EQ(itself.exit_code, 2);
  EXPECT_NE(MountOverlay({"disk.qcow2"}, "text").exit_code, 0);
  EXPECT_EQ(ReadHostFile(folder_ / "text"), Bytes(1 << 20, std::byte{'t'}));
  KeyFile("wrong", "key");
  EXPECT_EQ(MountOverlay({"other.qcow2"}, "new.qcow2").exit_code, 3);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "new.qcow2"));
  for (const std::vector<std::string>& options :
       std::vector<std::vector<std::string>>{{"--encryption", "none"},
                                             {"--read-only"},
                                             {"-o", "ro"},
                                             {"--forensic"},
                                             {"--no-backing"},
                                             {"--force-share"},
                                             {"--snapshot", "s"}}) {
    std::vector<std::string> image = options;
    image.push_back("disk.qcow2");
    EXPECT_EQ(MountOverlay(image, "new.qcow2").exit_code, 2)
        << testing::PrintToString(options);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "new.qcow2"));
  }
}

}  // namespace
}  // namespace pellucid
