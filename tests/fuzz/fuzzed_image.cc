#include "tests/fuzz/fuzzed_image.h"

#include <algorithm>
#include <span>
#include <utility>

#include "crypto/sector_cipher.h"
#include "engine/borrowed_device.h"
#include "engine/qcow2/header.h"
#include "tests/engine/memory_device.h"
#include "tests/fuzz/fuzz_target.h"

namespace pellucid {
namespace {

constexpr int kExtents = 60;
constexpr uint64_t kPiece = 4096;
constexpr uint64_t kBackingBytes = 50'000;

// Of the first bytes of a short file, so that it ends within a cluster.
std::vector<std::byte> BackingContent() {
  std::vector<std::byte> content(kBackingBytes);
  for (size_t i = 0; i < content.size(); ++i) {
    content[i] = static_cast<std::byte>(i / 7);
  }
  return content;
}

std::unique_ptr<SparseDevice> EmptyFile(uint64_t size) {
  auto file = std::make_unique<SparseDevice>(std::span<const uint8_t>());
  file->Resize(size);
  return file;
}

qcow2::Qcow2Image::Parts PartsOf(SparseDevice& file) {
  qcow2::Qcow2Image::Parts parts;
  parts.file_name = "disk.qcow2";
  parts.header = qcow2::ReadHeader(file, parts.file_name);
  parts.snapshots = qcow2::ReadSnapshots(file, parts.file_name, parts.header);
  parts.l2_cache_bytes = 32 << 10;
  const qcow2::CryptMethod method = parts.header.crypt_method;
  if (method != qcow2::CryptMethod::kNone) {
    const bool luks = method == qcow2::CryptMethod::kLuks;
    const std::vector<std::byte> key(luks ? 64 : 16, std::byte{0x5a});
    parts.cipher = crypto::MakeSectorCipher({.cipher = "aes",
                                             .mode = luks ? "xts" : "cbc",
                                             .iv = "plain64",
                                             .iv_hash = ""},
                                            key);
    parts.wipes_freed = luks;
  }
  if (!parts.header.backing_file.empty()) {
    static const std::vector<std::byte> content = BackingContent();
    parts.backing = std::make_unique<MemoryDevice>(content);
  }
  return parts;
}

}  // namespace

std::unique_ptr<qcow2::Qcow2Image> OpenToRead(
    SparseDevice& file, const std::optional<qcow2::Snapshot>& snapshot) {
  qcow2::Qcow2Image::Parts parts = PartsOf(file);
  parts.file = std::make_unique<BorrowedDevice>(file);
  parts.snapshot = snapshot;
  if (parts.header.has(qcow2::kExternalDataFile)) {
    parts.data_file = EmptyFile(kSeenBytes);
  }
  return std::make_unique<qcow2::Qcow2Image>(std::move(parts));
}

std::unique_ptr<qcow2::Qcow2Image> OpenToWrite(SparseDevice& file) {
  qcow2::Qcow2Image::Parts parts = PartsOf(file);
  parts.writable_file = std::make_unique<BorrowedDevice>(file);
  if (parts.header.has(qcow2::kExternalDataFile)) {
    parts.writable_data_file = EmptyFile(kSeenBytes);
  }
  return std::make_unique<qcow2::Qcow2Image>(std::move(parts));
}

void ReadAround(BlockDevice& device) {
  std::vector<std::byte> piece(kPiece);
  const uint64_t size = device.size();
  uint64_t at = 0;
  for (int i = 0; at < size && i < kExtents; ++i) {
    const Extent extent = device.ExtentAt(at, size - at);
    Require(extent.length > 0 && extent.length <= size - at,
            "an extent that is empty or too long");
    const std::span out =
        std::span(piece).first(std::min(extent.length, kPiece));
    device.Read(at, out);
    if (extent.is_hole) {
      Require(
          std::ranges::all_of(out, [](auto b) { return b == std::byte{0}; }),
          "a hole that is not zeros");
    }
    at += extent.length;
  }
  const uint64_t end = std::min(size, kPiece - 1);
  if (end == 0) return;
  device.ExtentAt(size - end, end);
  device.Read(size - end, std::span(piece).first(end));
}

std::vector<std::optional<std::vector<std::byte>>> SeenContent(
    BlockDevice& device) {
  std::vector<std::optional<std::vector<std::byte>>> pieces;
  const uint64_t end = std::min(device.size(), kSeenBytes);
  for (uint64_t at = 0; at < end; at += kPiece) {
    std::vector<std::byte> piece(std::min(kPiece, end - at));
    const bool readable = Attempt([&] { device.Read(at, piece); });
    pieces.push_back(readable ? std::optional(std::move(piece)) : std::nullopt);
  }
  return pieces;
}

}  // namespace pellucid
