#include "tests/tools/encrypted_image_fixture.h"

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <span>
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

// Making an encrypted image takes qemu-img seconds, and each test runs in a
// process of its own: an image that one of them has made serves the others.
std::filesystem::path CachedImage(const std::vector<std::string>& create,
                                  const std::vector<std::string>& write) {
  const std::string recipe =
      fmt::format("{}\n{}", fmt::join(create, "\n"), fmt::join(write, "\n"));
  const std::filesystem::path cache =
      std::filesystem::path(PELLUCID_TEST_SCRATCH) / "tools-images";
  std::filesystem::create_directories(cache);
  const std::filesystem::path cached =
      cache / Sha256(std::as_bytes(std::span(recipe)));
  if (!std::filesystem::exists(cached)) {
    const ScratchFolder folder;
    CreateImage(create, folder.path());
    if (!write.empty()) RunTool(write, "", folder.path());
    // Appears whole or not at all; another process may be making it, too.
    const std::filesystem::path copy =
        fmt::format("{}.{}", cached.string(), getpid());
    std::filesystem::copy_file(folder / "image", copy);
    std::filesystem::rename(copy, cached);
  }
  return cached;
}

}  // namespace

std::filesystem::path EncryptedImageTest::MakeImage(
    const std::string& name, const std::string& options,
    std::string_view passphrase) {
  const bool encrypted = options.find("encrypt.format") != std::string::npos;
  const bool backed = options.find("backing_file") != std::string::npos;
  const std::string secret = fmt::format("secret,id=key,data={}", passphrase);
  const std::string key = encrypted ? ",encrypt.key-secret=key" : "";
  // -u: the backing file is not there yet.
  const std::vector<std::string> create = {
      "qemu-img", "create",      "-q",    "-u",
      "--object", secret,        "-f",    "qcow2",
      "-o",       options + key, "image", std::to_string(kImageSize)};
  const std::vector<std::string> write = {
      "qemu-io",
      "--object",
      secret,
      "--image-opts",
      "-c",
      fmt::format("write -P {} {} {}", kPatternByte, kDataOffset, kDataLength),
      "-c",
      fmt::format("write -P {} {} {}", kTailByte, kImageSize - kTailLength,
                  kTailLength),
      "driver=qcow2,file.filename=image" + key};
  const std::filesystem::path cached =
      CachedImage(create, backed ? std::vector<std::string>() : write);
  std::filesystem::copy_file(cached, folder_ / name);
  return folder_ / name;
}

void EncryptedImageTest::Encrypt(const std::string& plain,
                                 const std::string& image) {
  RunTool({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "--object",
           "secret,id=s,file=" + KeyFile(), "-o",
           "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
           plain, image},
          "", folder_.path());
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
