#ifndef PELLUCID_TESTS_FUZZ_HOST_FILES_H_
#define PELLUCID_TESTS_FUZZ_HOST_FILES_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "engine/open_image.h"
#include "engine/passphrase_source.h"

namespace pellucid {

// The files of a backing chain on the host, "0" to "3" in a folder of their
// own. An input is as SparseDevice has it, but the highest two bits of a
// sector's number tell which file it belongs to. The size at its start is that
// of file 0; the others end with their last sector.
class HostFiles {
 public:
  static constexpr size_t kCount = 4;

  HostFiles();
  HostFiles(const HostFiles&) = delete;
  HostFiles& operator=(const HostFiles&) = delete;
  ~HostFiles();

  // Makes all files anew.
  void Put(std::span<const uint8_t> input);

  // File 0, which may name nothing outside of the folder.
  OpenOptions Options() const;
  // Ends the fuzzer unless `opened` has only files of the folder.
  void RequireNoOthers(const OpenedImage& opened) const;
  // Ends the fuzzer if the times of a file tell that it was read or written,
  // but for those at `written`.
  void RequireUntouched(
      const std::vector<std::filesystem::path>& written = {}) const;

 private:
  std::filesystem::path Path(size_t file) const;

  std::filesystem::path folder_;
};

// Has no passphrase.
class NoPassphrases : public PassphraseSource {
 public:
  std::optional<crypto::SecretBytes> Get(std::string_view, unsigned) override {
    return std::nullopt;
  }
  void Accepted() override {}
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_FUZZ_HOST_FILES_H_
