#ifndef PELLUCID_TOOLS_MANIFEST_FORMAT_H_
#define PELLUCID_TOOLS_MANIFEST_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid::cli {

// The names of what a manifest says (docs/manifest.md).
inline constexpr char kManifestVersionField[] = "pellucid_manifest";
inline constexpr uint64_t kManifestVersion = 1;
inline constexpr char kManifestChecksumField[] = "manifest_sha256";

// Lines are no longer: a reader need not hold more of a hostile file.
inline constexpr size_t kMaxManifestLine = size_t{64} << 10;
inline constexpr size_t kMaxManifestAlgorithms = 8;

inline constexpr uint64_t kMinChunkSize = 4096;
inline constexpr uint64_t kDefaultChunkSize = uint64_t{1} << 20;
inline constexpr uint64_t kMaxChunkSize = uint64_t{64} << 20;

// May chunks have that size? It bounds the buffers of whoever reads them.
bool IsChunkSize(uint64_t size);

// The first line.
struct ManifestHeader {
  std::string image;        // As it was named.
  uint64_t image_size = 0;  // All of its plaintext.
  uint64_t offset = 0;      // Where in that the described bytes begin.
  uint64_t size = 0;        // How many there are.
  uint64_t chunk_size = kDefaultChunkSize;
  std::vector<std::string> algorithms;  // Of the chunks.
};

// Digests in lower-case hexadecimal digits.
std::string FormatHex(std::span<const std::byte> bytes);
// False unless `text` is exactly that of bytes.size() bytes.
bool ParseHex(std::string_view text, std::span<std::byte> bytes);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MANIFEST_FORMAT_H_
