#include "crypto/cipher_mode.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "crypto/aes_modes.h"
#include "crypto/block_cipher.h"
#include "crypto/masked_mode.h"
#include "crypto/named_table.h"
#include "crypto/nist_modes.h"
#include "crypto/unsupported_algorithm.h"

namespace pellucid::crypto {
namespace {

struct ModeEntry {
  std::string_view name;
  // The length of the volume key for a cipher key of this length.
  size_t (*volume_key_size)(size_t cipher_key_size);
  bool needs_16_byte_blocks;
  std::unique_ptr<CipherMode> (*make)(std::string_view cipher,
                                      std::span<const std::byte> key);
};

size_t OneKey(size_t size) { return size; }
size_t TwoKeys(size_t size) { return 2 * size; }
size_t KeyAndTweakBlock(size_t size) { return size + kMaskedBlockSize; }

constexpr ModeEntry kModes[] = {
    {"xts", TwoKeys, true, MakeXtsMode},
    {"cbc", OneKey, false, MakeCbcMode},
    {"ctr", OneKey, false, MakeCtrMode},
    {"ecb", OneKey, false, MakeEcbMode},
    {"lrw", KeyAndTweakBlock, true, MakeLrwMode},
};

const ModeEntry& FindMode(std::string_view name) {
  return FindByName(kModes, "cipher mode", name);
}

// What the cipher's keys make of a volume key in this mode.
std::vector<size_t> VolumeKeySizes(std::string_view cipher,
                                   const ModeEntry& mode) {
  std::vector<size_t> sizes;
  for (const size_t size : KeySizes(cipher)) {
    sizes.push_back(mode.volume_key_size(size));
  }
  return sizes;
}

}  // namespace

std::unique_ptr<CipherMode> MakeCipherMode(const CipherSpec& spec,
                                           std::span<const std::byte> key) {
  const ModeEntry& mode = FindMode(spec.mode);
  if (mode.needs_16_byte_blocks && BlockSize(spec.cipher) != kMaskedBlockSize) {
    throw UnsupportedAlgorithm(fmt::format(
        "{}: mode {} needs a cipher with blocks of 16 bytes, {} has {} "
        "(supported: {}-cbc)",
        spec.ToString(), spec.mode, spec.cipher, BlockSize(spec.cipher),
        spec.cipher));
  }
  const std::vector<size_t> key_sizes = VolumeKeySizes(spec.cipher, mode);
  if (std::ranges::find(key_sizes, key.size()) == key_sizes.end()) {
    throw UnsupportedAlgorithm(fmt::format(
        "{}: cipher {} in mode {} takes no key of {} bytes (supported: {})",
        spec.ToString(), spec.cipher, spec.mode, key.size(),
        fmt::join(key_sizes, ", ")));
  }
  const AesPath path = AvailableAesPaths().back();
  if (spec.cipher == "aes" && spec.mode == "xts") {
    return MakeAesXtsMode(key, path);
  }
  if (spec.cipher == "aes" && spec.mode == "cbc") {
    return MakeAesCbcMode(key, path);
  }
  return mode.make(spec.cipher, key);
}

void RequireCipherMode(std::string_view name) { FindMode(name); }

}  // namespace pellucid::crypto
