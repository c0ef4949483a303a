#ifndef PELLUCID_TESTS_ENGINE_HOST_FILES_FIXTURE_H_
#define PELLUCID_TESTS_ENGINE_HOST_FILES_FIXTURE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid {

using Bytes = std::vector<std::byte>;

// A folder that goes, with what is in it, when the test does.
class ScratchFolder {
 public:
  ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder();

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const {
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

// All throw std::runtime_error, which fails the test.
Bytes ReadHostFile(const std::filesystem::path& path);
void WriteHostFile(const std::filesystem::path& path,
                   std::span<const std::byte> content);
void WriteHostFile(const std::filesystem::path& path, std::string_view content);

// Lower-case hexadecimal.
std::string Sha256(std::span<const std::byte> content);

// A number in the byte order of qcow2 and LUKS.
uint64_t LoadNumber(std::span<const std::byte> bytes, uint64_t offset,
                    unsigned width);
void StoreNumber(std::span<std::byte> bytes, uint64_t offset, unsigned width,
                 uint64_t value);

// `size` bytes that look random and are the same for the same `seed`.
Bytes Noise(size_t size, uint64_t seed);

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_HOST_FILES_FIXTURE_H_
