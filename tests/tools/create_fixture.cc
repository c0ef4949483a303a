#include "tests/tools/create_fixture.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>

namespace pellucid {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

Words operator+(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

const Words kKey = {"--key-file", "key"};
const Words kFastPbkdf2 = {"--key-file",          "key", "--kdf", "pbkdf2",
                           "--pbkdf2-iterations", "1000"};
const Words kFastArgon2 = {"--key-file",      "key", "--argon2-time", "4",
                           "--argon2-memory", "32",  "--argon2-cpus", "1"};

std::string CreateTest::MustCreate(const Words& arguments) {
  const ProgramResult result = Create(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, IsEmpty());
  return result.out;
}

void CreateTest::ExpectRefused(const Words& arguments, const std::string& text,
                               int exit_code) {
  SCOPED_TRACE(fmt::format("{}", testing::PrintToString(arguments)));
  const ProgramResult result = Create(arguments + Words{"--key-file", "key"});
  EXPECT_EQ(result.exit_code, exit_code);
  EXPECT_THAT(result.err, StartsWith("pellucid: "));
  EXPECT_THAT(result.err, HasSubstr(text));
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1);
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_FALSE(Exists("new"));
  EXPECT_FALSE(Exists("hdr"));
}

json CreateTest::Info(const Words& arguments) {
  const ProgramResult result = RunPellucid(Words{"info", "--json"} + arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return json::parse(result.out);
}

Bytes CreateTest::Export(const Words& arguments) {
  const ProgramResult result =
      RunPellucid(Words{"export", "--force"} + arguments + Words{"copy.raw"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return ReadHostFile(folder_ / "copy.raw");
}

void CreateTest::ExpectCryptsetupOpens(const std::string& header,
                                       const std::string& version) {
  EXPECT_THAT(Run({"cryptsetup", "luksDump", header}),
              testing::ContainsRegex("Version:[ \t]+" + version));
  Run({"cryptsetup", "isLuks", "--type", "luks" + version, header});
  Run({"cryptsetup", "open", "--test-passphrase", "--key-file", "key", header});
  EXPECT_NE(RunProgram({"cryptsetup", "open", "--test-passphrase", "--key-file",
                        "-", header},
                       "wrong", folder_.path())
                .exit_code,
            0);
}

void CreateTest::ExpectWeAndQemuReadEachOther(const std::string& driver,
                                              const std::string& image,
                                              uint64_t size) {
  const Bytes source = Noise(size, 11);
  WriteHostFile(folder_ / "source", source);
  const std::string prefix = driver == "qcow2" ? "encrypt." : "";
  const std::string by_qemu = fmt::format(
      "driver={},{}key-secret=s,file.filename={}", driver, prefix, image);
  Run({"qemu-io", "--object", "secret,id=s,file=key", "-c",
       fmt::format("write -q -s source 0 {}", size), "--image-opts", by_qemu});
  EXPECT_TRUE(Export({"--key-file", "key", image}) == source);

  const Bytes ours = Noise(size, 12);
  WriteHostFile(folder_ / "ours", ours);
  const ProgramResult result =
      RunPellucid({"import", "--key-file", "key", "--quiet", "ours", image});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  Run({"qemu-img", "convert", "-O", "raw", "--object", "secret,id=s,file=key",
       "--image-opts", by_qemu, "read"});
  EXPECT_TRUE(ReadHostFile(folder_ / "read") == ours);
}

}  // namespace pellucid
