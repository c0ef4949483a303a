#include "tests/tools/encrypted_image_fixture.h"

#include <fmt/core.h>

#include <algorithm>
#include <stdexcept>

namespace pellucid {
namespace {

constexpr int kPatternByte = 0x5a;
constexpr int kTailByte = 0xa5;

// qemu-img measures how fast it derives keys, and now and then finds that the
// time was too short to tell.
void CreateImage(const std::vector<std::string>& argv,
                 const std::filesystem::path& folder) {
  for (int attempt = 0;; ++attempt) {
    const ProgramResult result = RunProgram(argv, "", folder);
    if (result.exit_code == 0) return;
    if (attempt == 100 || result.err.find("CPU usage") == std::string::npos) {
      throw std::runtime_error("qemu-img create: " + result.err);
    }
  }
}

}  // namespace

std::filesystem::path EncryptedImageTest::MakeImage(
    const std::string& name, const std::string& options,
    std::string_view passphrase) {
  const bool encrypted = options.find("encrypt.format") != std::string::npos;
  const std::string secret = fmt::format("secret,id=key,data={}", passphrase);
  const std::string key = encrypted ? "encrypt.key-secret=key" : "";
  CreateImage({"qemu-img", "create", "-q", "--object", secret, "-f", "qcow2",
               "-o", options + (encrypted ? "," + key : ""), name,
               std::to_string(kImageSize)},
              folder_.path());
  RunTool(
      {"qemu-io", "--object", secret, "--image-opts", "-c",
       fmt::format("write -P {} {} {}", kPatternByte, kDataOffset, kDataLength),
       "-c",
       fmt::format("write -P {} {} {}", kTailByte, kImageSize - kTailLength,
                   kTailLength),
       fmt::format("driver=qcow2,file.filename={}{}", name,
                   encrypted ? "," + key : "")},
      "", folder_.path());
  return folder_ / name;
}

Bytes EncryptedImageTest::Plaintext() {
  Bytes content(kImageSize);
  std::fill_n(content.begin() + kDataOffset, kDataLength,
              static_cast<std::byte>(kPatternByte));
  std::fill_n(content.end() - kTailLength, kTailLength,
              static_cast<std::byte>(kTailByte));
  return content;
}

std::string EncryptedImageTest::KeyFile(std::string_view passphrase,
                                        const std::string& name) {
  WriteHostFile(folder_ / name, passphrase);
  return name;
}

ProgramResult EncryptedImageTest::RunPellucid(
    const std::vector<std::string>& arguments, std::string_view input) {
  // In a session of its own the program has no terminal to ask on, even if the
  // test has.
  std::vector<std::string> argv = {"setsid", "--wait", PELLUCID_PROGRAM};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return RunProgram(argv, input, folder_.path());
}

}  // namespace pellucid
