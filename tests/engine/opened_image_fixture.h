#ifndef PELLUCID_TESTS_ENGINE_OPENED_IMAGE_FIXTURE_H_
#define PELLUCID_TESTS_ENGINE_OPENED_IMAGE_FIXTURE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/block_device.h"
#include "engine/open_image.h"
#include "engine/passphrase_source.h"
#include "tests/engine/host_files_fixture.h"

namespace pellucid {

// Passphrases that a test knows: those of a file by its name, the others for
// every layer.
class KnownPassphrases : public PassphraseSource {
 public:
  KnownPassphrases() = default;
  explicit KnownPassphrases(std::vector<std::string> for_all)
      : for_all_(std::move(for_all)) {}

  void Add(const std::string& file_name, const std::string& passphrase) {
    by_file_[file_name].push_back(passphrase);
  }

  std::optional<crypto::SecretBytes> Get(std::string_view layer,
                                         unsigned attempt) override;
  void Accepted() override { ++accepted_; }

  // How often a layer was opened.
  int accepted() const { return accepted_; }
  // How many passphrases were handed out.
  int given() const { return given_; }

 private:
  std::vector<std::string> for_all_;
  std::map<std::string, std::vector<std::string>> by_file_;
  int accepted_ = 0;
  int given_ = 0;
};

// OpenImage() with one passphrase, or none.
std::unique_ptr<BlockDevice> OpenDevice(const OpenOptions& options,
                                        const std::string& passphrase = "");

// The whole content, read in pieces of `piece` bytes.
Bytes ReadAll(BlockDevice& device, size_t piece = 1 << 20);

// Fails the test unless a walk by ExtentAt() covers the device exactly, holes
// read as zeros, `content` being what the device holds, and a query from the
// middle of an extent agrees with the walk. Gives the bytes in holes.
uint64_t CheckExtents(BlockDevice& device, const Bytes& content);

// Fails the test unless `count` reads at random offsets and of random lengths
// give what `content` has.
void CheckRandomReads(BlockDevice& device, const Bytes& content, int count,
                      uint64_t seed);

// Where two contents differ first, as a text; empty if they are equal.
std::string FirstDifference(const Bytes& found, const Bytes& expected);

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_OPENED_IMAGE_FIXTURE_H_
