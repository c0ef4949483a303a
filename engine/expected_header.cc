#include "engine/expected_header.h"

#include <fmt/format.h>
#include <strings.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "crypto/hash.h"
#include "engine/errors.h"

namespace pellucid {
namespace {

constexpr size_t kReadBytes = size_t{1} << 20;

bool SameText(const std::string& a, const std::string& b) {
  return strcasecmp(a.c_str(), b.c_str()) == 0;
}

std::string Sha256Of(BlockDevice& file) {
  const auto hasher = crypto::MakeHasher("sha256");
  std::vector<std::byte> buffer(kReadBytes);
  for (uint64_t at = 0; at < file.size(); at += buffer.size()) {
    buffer.resize(static_cast<size_t>(
        std::min<uint64_t>(buffer.size(), file.size() - at)));
    file.Read(at, buffer);
    hasher->Update(buffer);
  }
  std::vector<std::byte> digest(hasher->digest_size());
  hasher->Final(digest);
  std::string hex;
  for (const std::byte byte : digest) {
    hex += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  }
  return hex;
}

}  // namespace

void CheckUuid(const ExpectedHeader& expected, const luks::VolumeHeader& header,
               const std::string& file_name) {
  if (expected.uuid.empty() || SameText(expected.uuid, header.uuid)) return;
  throw UsageError(fmt::format(
      "{}: the UUID of the LUKS header is {}, not {} as --expect-uuid has it; "
      "is it the header of another volume?",
      file_name, header.uuid, expected.uuid));
}

void ThrowNoHeader(const std::string& file_name) {
  throw UsageError(fmt::format(
      "{}: no LUKS header can be seen that --expect-uuid could be about; the "
      "image has none, or it lies within something encrypted",
      file_name));
}

void CheckHeaderFile(const ExpectedHeader& expected, BlockDevice& file,
                     const std::string& file_name) {
  if (expected.sha256.empty()) return;
  const std::string actual = Sha256Of(file);
  if (SameText(expected.sha256, actual)) return;
  throw UsageError(
      fmt::format("{}: its SHA-256 is {}, not {} as --expect-header-sha256 has "
                  "it; is it the header of another volume, or has it changed?",
                  file_name, actual, expected.sha256));
}

}  // namespace pellucid
