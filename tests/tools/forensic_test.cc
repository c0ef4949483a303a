#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <regex>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr char kAttribute[] = "trusted.pellucid";

// Everything that one can know of a file without reading it.
using Look = std::tuple<ino_t, mode_t, nlink_t, off_t, blkcnt_t, time_t, long,
                        time_t, long, time_t, long, std::string>;

// Evidence on a file system that notes every reading: an encrypted image with a
// backing file, and a payload with its detached header.
class ForensicTest : public EncryptedImageTest {
 protected:
  ForensicTest() {
    KeyFile();
    std::filesystem::create_directory(evidence_);
    if (mount("evidence", evidence_.c_str(), "tmpfs", MS_STRICTATIME,
              "size=256m") != 0) {
      throw std::system_error(errno, std::generic_category(),
                              "mounting a tmpfs (needs root)");
    }
    MakeImage("evidence/base.qcow2");
    RunTool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b",
             "base.qcow2", "-F", "qcow2", "top.qcow2", "64M"},
            "", evidence_);
    Pellucid({"create", "--key-file", "key", "--iter-time", "10", "--format",
              "raw", "--detached-header", "evidence/header", "evidence/payload",
              "1M"});
    for (const char* name : {"base.qcow2", "top.qcow2", "header", "payload"}) {
      files_.push_back(evidence_ / name);
      if (setxattr(files_.back().c_str(), kAttribute, name, strlen(name), 0) !=
          0) {
        throw std::system_error(errno, std::generic_category(), "setxattr");
      }
    }
    Pellucid({"export", "--key-file", "key", "--manifest", "manifest",
              "evidence/top.qcow2", "copy"});
  }

  ~ForensicTest() override {
    RunPellucid({"umount", "mnt"});  // Should a test have failed.
    umount2(evidence_.c_str(), MNT_DETACH);
  }

  void Pellucid(const std::vector<std::string>& arguments) {
    const ProgramResult result = RunPellucid(arguments);
    if (result.exit_code != 0) throw std::runtime_error(result.err);
  }

  static Look LookAt(const std::filesystem::path& file) {
    struct stat s = {};
    if (stat(file.c_str(), &s) != 0) throw std::runtime_error("stat");
    std::array<char, 64> value;
    const ssize_t length =
        getxattr(file.c_str(), kAttribute, value.data(), value.size());
    return {s.st_ino,
            s.st_mode,
            s.st_nlink,
            s.st_size,
            s.st_blocks,
            s.st_atim.tv_sec,
            s.st_atim.tv_nsec,
            s.st_mtim.tv_sec,
            s.st_mtim.tv_nsec,
            s.st_ctim.tv_sec,
            s.st_ctim.tv_nsec,
            {value.data(), static_cast<size_t>(std::max<ssize_t>(length, 0))}};
  }

  // Calls `run`, which must leave no trace in the evidence.
  template <class Run>
  void ExpectUntouched(Run run) {
    std::vector<std::string> hashes;
    std::vector<Look> looks;
    for (const auto& file : files_)
      hashes.push_back(Sha256(ReadHostFile(file)));
    for (const auto& file : files_) looks.push_back(LookAt(file));
    run();
    for (size_t i = 0; i < files_.size(); ++i) {
      EXPECT_EQ(LookAt(files_[i]), looks[i]) << files_[i];
    }
    for (size_t i = 0; i < files_.size(); ++i) {
      EXPECT_EQ(Sha256(ReadHostFile(files_[i])), hashes[i]) << files_[i];
    }
  }

  static constexpr std::array<const char*, 2> kImages = {"evidence/top.qcow2",
                                                         "evidence/base.qcow2"};
  const std::filesystem::path evidence_ = folder_ / "evidence";
  std::vector<std::filesystem::path> files_;
};

TEST_F(ForensicTest, TheFileSystemNotesEveryReading) {
  const Look before = LookAt(files_[0]);
  RunTool({"cat", files_[0]});
  EXPECT_NE(LookAt(files_[0]), before);
}

TEST_F(ForensicTest, NoSubcommandLeavesATrace) {
  const std::vector<std::string> options = {"--forensic", "--evidence-hash",
                                            "--key-file", "key"};
  struct Case {
    std::vector<std::string> words;
    bool needs_key = true;
  };
  for (const Case& c : std::vector<Case>{
           {{"info", "evidence/top.qcow2"}},
           {{"info", "--json", "--header", "evidence/header",
             "evidence/payload"}},
           {{"map", "evidence/top.qcow2"}},
           {{"map", "--json", "evidence/base.qcow2"}},
           {{"check", "evidence/base.qcow2"}, false},
           {{"check", "--header", "evidence/header", "evidence/payload"},
            false},
           {{"export", "--force", "--hash", "md5,sha256", "evidence/top.qcow2",
             "out"}},
           {{"export", "--force", "--header", "evidence/header",
             "evidence/payload", "out"}},
           {{"verify", "--image", "manifest", "evidence/top.qcow2"}}}) {
    SCOPED_TRACE(c.words[0] + " " + c.words.back());
    ExpectUntouched([&] {
      std::vector<std::string> words = c.words;
      words.insert(words.begin() + 1, options.begin(),
                   options.begin() + (c.needs_key ? 4 : 2));
      const ProgramResult result = RunPellucid(words);
      EXPECT_EQ(result.exit_code, 0) << result.err;
      EXPECT_THAT(result.err, HasSubstr("unchanged: "));
      EXPECT_THAT(result.err, HasSubstr("sha256 after: "));
    });
  }
}

TEST_F(ForensicTest, AMountLeavesNoTraceAndTellsSoInItsLog) {
  std::filesystem::create_directory(folder_ / "mnt");
  ExpectUntouched([&] {
    const ProgramResult mount =
        RunPellucid({"mount", "--forensic", "--evidence-hash", "--log", "log",
                     "--key-file", "key", "evidence/top.qcow2", "mnt"});
    ASSERT_EQ(mount.exit_code, 0) << mount.err;
    EXPECT_TRUE(ReadHostFile(folder_ / "mnt/disk") == Plaintext());
    EXPECT_EQ(RunProgram({"sh", "-c", "echo x >> mnt/disk"}, "", folder_.path())
                  .exit_code,
              2);
    EXPECT_EQ(RunPellucid({"umount", "mnt"}).exit_code, 0);
    std::string log;
    for (int i = 0; i < 1000 && log.find("ended with") == std::string::npos;
         ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      log = RunTool({"cat", "log"}, "", folder_.path());
    }
    EXPECT_THAT(log, HasSubstr("ended with exit code 0"));
    EXPECT_THAT(log, HasSubstr("unchanged: " + files_[0].native()));
    EXPECT_THAT(log, HasSubstr("unchanged: " + files_[1].native()));
  });
}

TEST_F(ForensicTest, EveryOpenedFileIsLoggedWithItsTime) {
  const ProgramResult result =
      RunPellucid({"export", "--forensic", "--evidence-hash", "--log", "log",
                   "--key-file", "key", "evidence/top.qcow2", "out"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, IsEmpty());
  const std::string log = RunTool({"cat", "log"}, "", folder_.path());
  std::istringstream lines(log);
  const std::regex time(R"(^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{9})?Z .+$)");
  for (std::string line; std::getline(lines, line);) {
    EXPECT_TRUE(std::regex_match(line, time)) << line;
  }
  EXPECT_THAT(log, HasSubstr(": export '--forensic' '--evidence-hash'"));
  for (const char* name : {"evidence/top.qcow2", "evidence/base.qcow2"}) {
    const std::string file = folder_ / name;
    EXPECT_THAT(log, HasSubstr("opened for reading: " + file + " (device "));
    const std::string hash = RunTool({"sha256sum", file}).substr(0, 64);
    EXPECT_THAT(log, HasSubstr("sha256 before: " + hash + "  " + file));
    EXPECT_THAT(log, HasSubstr("sha256 after: " + hash + "  " + file));
    EXPECT_THAT(log, HasSubstr("unchanged: " + file));
  }
  EXPECT_THAT(log, HasSubstr("read as a key: " + (folder_ / "key").native()));
  EXPECT_THAT(log,
              HasSubstr("opened for writing: " + (folder_ / "out").native()));
  EXPECT_THAT(log, Not(HasSubstr(std::string(kPassphrase))));
  EXPECT_THAT(log, Not(HasSubstr("CHANGED")));
}

TEST_F(ForensicTest, WhatWritesIsRefused) {
  ExpectUntouched([&] {
    std::filesystem::create_directory(folder_ / "mnt");
    for (const std::vector<std::string>& words :
         std::vector<std::vector<std::string>>{
             {"import", "--forensic", "key", "evidence/base.qcow2"},
             {"resize", "--forensic", "evidence/base.qcow2", "+1M"},
             {"mount", "--forensic", "-o", "rw", "evidence/base.qcow2", "mnt"},
             {"mount", "--forensic", "--evidence-hash", "evidence/base.qcow2",
              "mnt"},
             {"export", "--forensic", "--key-file", "key", "--force",
              "evidence/top.qcow2", "evidence/base.qcow2"},
             {"info", "--evidence-hash", "evidence/base.qcow2"},
             {"info", "--log", "l", "evidence/base.qcow2"},
             {"info", "--forensic", "--log", "evidence/base.qcow2",
              "evidence/base.qcow2"}}) {
      const ProgramResult result = RunPellucid(words);
      EXPECT_EQ(result.exit_code, 2) << testing::PrintToString(words);
    }
    const ProgramResult repair = RunPellucid(
        {"check", "--forensic", "--repair", "all", "evidence/base.qcow2"});
    EXPECT_EQ(repair.exit_code, 1);
    EXPECT_THAT(repair.err, HasSubstr("cannot be --forensic"));
  });
}

TEST_F(ForensicTest, WhoCannotKeepTheAccessTimeIsRefused) {
  // Readable by a user who may not open it with O_NOATIME.
  for (const auto& file : files_)
    std::filesystem::permissions(file, std::filesystem::perms(0644));
  std::filesystem::permissions(folder_.path(), std::filesystem::perms(0755));
  const auto info = [&](const std::string& option) {
    return RunProgram(
        {"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
         PELLUCID_PROGRAM, "info", option, "evidence/base.qcow2"},
        "", folder_.path());
  };
  if (info("--json").exit_code != 0) {
    GTEST_FAIL() << "the build folder must be readable for everybody: "
                 << info("--json").err;
  }
  ExpectUntouched([&] {
    const ProgramResult result = info("--forensic");
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.err, HasSubstr("access time"));
  });
}

TEST_F(ForensicTest, EvidenceThatChangesMeanwhileIsAnError) {
  // Under a lock that nobody else cares for.
  const auto export_while = [&](const std::string& change) {
    return RunProgram(
        {"bash", "-c",
         "mkfifo -m 600 pipe; { read -n 1 -u 3; " + change +
             "; cat <&3 >/dev/null; } 3<pipe & "
             "\"$0\" export --forensic --evidence-hash --key-file key --force "
             "evidence/base.qcow2 - >pipe; code=$?; rm pipe; exit $code",
         PELLUCID_PROGRAM},
        "", folder_.path());
  };
  const ProgramResult quiet = export_while("true");
  EXPECT_EQ(quiet.exit_code, 0) << quiet.err;
  const ProgramResult touched = export_while("touch evidence/base.qcow2");
  EXPECT_EQ(touched.exit_code, 1);
  EXPECT_THAT(touched.err, HasSubstr("evidence has changed"));
  const ProgramResult read = export_while("cat evidence/base.qcow2 >/dev/null");
  EXPECT_EQ(read.exit_code, 1);
  EXPECT_THAT(read.err, HasSubstr("it was read"));
  // Written behind the metadata's back, with the old times.
  const ProgramResult written = export_while(
      "touch -r evidence/base.qcow2 times; printf x | dd bs=1 conv=notrunc "
      "status=none of=evidence/base.qcow2 seek=$(($(stat -c %s "
      "evidence/base.qcow2) - 1)); touch -r times evidence/base.qcow2");
  EXPECT_EQ(written.exit_code, 1);
  EXPECT_THAT(written.err, HasSubstr("SHA-256 is another"));
}

}  // namespace
}  // namespace pellucid
