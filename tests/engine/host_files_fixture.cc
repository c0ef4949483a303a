#include "tests/engine/host_files_fixture.h"

#include <cryptopp/sha.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <stdexcept>
#include <system_error>

namespace pellucid {

namespace fs = std::filesystem;

ScratchFolder::ScratchFolder() {
  std::string name = (fs::temp_directory_path() / "pellucid-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) {
    throw std::system_error(errno, std::generic_category(), name);
  }
  path_ = fs::canonical(name);
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

Bytes ReadHostFile(const fs::path& path) {
  Bytes content(fs::file_size(path));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(content.data()),
            static_cast<std::streamsize>(content.size()));
  if (!file) throw std::runtime_error("cannot read " + path.native());
  return content;
}

void WriteHostFile(const fs::path& path, std::span<const std::byte> content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(content.data()),
             static_cast<std::streamsize>(content.size()));
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path.native());
}

void WriteHostFile(const fs::path& path, std::string_view content) {
  WriteHostFile(path, std::as_bytes(std::span(content)));
}

std::string Sha256(std::span<const std::byte> content) {
  CryptoPP::byte digest[CryptoPP::SHA256::DIGESTSIZE];
  CryptoPP::SHA256().CalculateDigest(
      digest, reinterpret_cast<const CryptoPP::byte*>(content.data()),
      content.size());
  std::string text;
  for (const CryptoPP::byte b : digest) text += fmt::format("{:02x}", b);
  return text;
}

uint64_t LoadNumber(std::span<const std::byte> bytes, uint64_t offset,
                    unsigned width) {
  uint64_t value = 0;
  for (const std::byte b : bytes.subspan(offset, width)) {
    value = value << 8 | std::to_integer<uint64_t>(b);
  }
  return value;
}

void StoreNumber(std::span<std::byte> bytes, uint64_t offset, unsigned width,
                 uint64_t value) {
  const std::span<std::byte> field = bytes.subspan(offset, width);
  for (size_t i = field.size(); i-- > 0; value >>= 8) {
    field[i] = static_cast<std::byte>(value & 0xff);
  }
}

Bytes Noise(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes content(size);
  for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(content.data() + at, &word, std::min(sizeof(word), size - at));
  }
  return content;
}

}  // namespace pellucid
