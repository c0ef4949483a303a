#ifndef PELLUCID_TESTS_TOOLS_ENCRYPTED_IMAGE_FIXTURE_H_
#define PELLUCID_TESTS_TOOLS_ENCRYPTED_IMAGE_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {

// A folder with images that QEMU encrypts, and the program at work in it.
class EncryptedImageTest : public testing::Test {
 protected:
  static constexpr std::string_view kPassphrase = "open sesame";
  static constexpr uint64_t kImageSize = uint64_t{64} << 20;

  // Where the images of MakeImage() have data: 3 MiB from 10 MiB on, and the
  // last 1000 bytes.
  static constexpr uint64_t kDataOffset = uint64_t{10} << 20;
  static constexpr uint64_t kDataLength = uint64_t{3} << 20;
  static constexpr uint64_t kTailLength = 1000;

  // A qcow2 image of kImageSize bytes with data, encrypted with LUKS, or
  // unlike that with other `options` of `qemu-img create -o`. With a backing
  // file it has no data of its own.
  std::filesystem::path MakeImage(
      const std::string& name,
      const std::string& options = "encrypt.format=luks,encrypt.iter-time=10",
      std::string_view passphrase = kPassphrase);

  // An encrypted qcow2 image of a raw one; both are names in folder_.
  void Encrypt(const std::string& plain, const std::string& image);

  // What is in every image of MakeImage().
  static Bytes Plaintext();

  // A file with the passphrase.
  std::string KeyFile(std::string_view passphrase = kPassphrase,
                      const std::string& name = "key");

  // Runs pellucid in folder_, without a terminal.
  ProgramResult RunPellucid(const std::vector<std::string>& arguments,
                            std::string_view input = "");

  ScratchFolder folder_;
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_TOOLS_ENCRYPTED_IMAGE_FIXTURE_H_
