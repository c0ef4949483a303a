#ifndef PELLUCID_TESTS_TOOLS_CREATE_FIXTURE_H_
#define PELLUCID_TESTS_TOOLS_CREATE_FIXTURE_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {

using Words = std::vector<std::string>;

Words operator+(Words words, const Words& more);

// Options for a key that is derived in no time.
extern const Words kKey;
extern const Words kFastPbkdf2;
extern const Words kFastArgon2;

// `pellucid create` in a folder with a key file "key", and its judges. Every
// function fails the test if a program fails.
class CreateTest : public EncryptedImageTest {
 protected:
  CreateTest() { KeyFile(); }

  ProgramResult Create(const Words& arguments) {
    return RunPellucid(Words{"create"} + arguments);
  }
  // Gives what it prints.
  std::string MustCreate(const Words& arguments);
  // Expects a message of one line, and that neither "new" nor "hdr" is made.
  void ExpectRefused(const Words& arguments, const std::string& text,
                     int exit_code = 2);

  bool Exists(const std::string& name) const {
    return std::filesystem::exists(folder_ / name);
  }
  nlohmann::json Info(const Words& arguments);
  Bytes Export(const Words& arguments);
  std::string Run(const Words& argv) {
    return RunTool(argv, "", folder_.path());
  }

  void ExpectCryptsetupOpens(const std::string& header,
                             const std::string& version);
  // QEMU writes noise into the image and we read it; and the reverse.
  void ExpectWeAndQemuReadEachOther(const std::string& driver,
                                    const std::string& image, uint64_t size);
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_TOOLS_CREATE_FIXTURE_H_
