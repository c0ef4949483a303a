#include "crypto/aes_xts.h"

#include <new>
#include <stdexcept>

#include "crypto/aes_xts_paths.h"
#include "crypto/cpu_features.h"
#include "crypto/masked_mode.h"
#include "crypto/secret_bytes.h"

namespace pellucid::crypto {
namespace {

#if defined(__x86_64__)

class AesXtsMode : public CipherMode {
 public:
  AesXtsMode(std::span<const std::byte> key, const AesXtsFunctions& functions)
      : functions_(functions),
        key_pages_(sizeof(AesXtsKeys)),
        keys_(*new (key_pages_.bytes().data()) AesXtsKeys) {
    const size_t half = key.size() / 2;
    ExpandEncryptionKey(key.first(half), keys_.encryption);
    InvertRoundKeys(keys_.encryption, keys_.decryption);
    ExpandEncryptionKey(key.last(half), keys_.tweak);
  }

  size_t block_size() const override { return kMaskedBlockSize; }

  void Encrypt(std::span<std::byte> ivs, size_t sector_size,
               std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    functions_.encrypt(Request(ivs, sector_size, in, out));
  }

  void Decrypt(std::span<std::byte> ivs, size_t sector_size,
               std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    functions_.decrypt(Request(ivs, sector_size, in, out));
  }

 private:
  AesXtsRequest Request(std::span<const std::byte> ivs, size_t sector_size,
                        std::span<const std::byte> in,
                        std::span<std::byte> out) const {
    return {keys_,       ivs.data(), in.size() / sector_size,
            sector_size, in.data(),  out.data()};
  }

  const AesXtsFunctions& functions_;
  SecretBytes key_pages_;
  AesXtsKeys& keys_;  // In key_pages_.
};

std::unique_ptr<CipherMode> MakeFastAesXtsMode(std::span<const std::byte> key,
                                               AesXtsPath path) {
  switch (path) {
    case AesXtsPath::kAesNi:
      return std::make_unique<AesXtsMode>(key, kAesXtsAesNi);
    case AesXtsPath::kVaes256:
      return std::make_unique<AesXtsMode>(key, kAesXtsVaes256);
    case AesXtsPath::kVaes512:
      return std::make_unique<AesXtsMode>(key, kAesXtsVaes512);
    case AesXtsPath::kPortable:
      break;
  }
  throw std::invalid_argument("not a path of AES-XTS");
}

#else

std::unique_ptr<CipherMode> MakeFastAesXtsMode(std::span<const std::byte>,
                                               AesXtsPath) {
  throw std::invalid_argument("only the portable path of AES-XTS is available");
}

#endif

}  // namespace

std::string_view ToString(AesXtsPath path) {
  switch (path) {
    case AesXtsPath::kPortable:
      return "portable";
    case AesXtsPath::kAesNi:
      return "AES-NI";
    case AesXtsPath::kVaes256:
      return "VAES-256";
    case AesXtsPath::kVaes512:
      return "VAES-512";
  }
  return "";
}

std::vector<AesXtsPath> AvailableAesXtsPaths() {
  const CpuFeatures& cpu = GetCpuFeatures();
  std::vector<AesXtsPath> paths = {AesXtsPath::kPortable};
  if (cpu.aes_ni) paths.push_back(AesXtsPath::kAesNi);
  if (cpu.vaes256) paths.push_back(AesXtsPath::kVaes256);
  if (cpu.vaes512) paths.push_back(AesXtsPath::kVaes512);
  return paths;
}

std::unique_ptr<CipherMode> MakeAesXtsMode(std::span<const std::byte> key,
                                           AesXtsPath path) {
  if (key.size() != 32 && key.size() != 48 && key.size() != 64) {
    throw std::invalid_argument("an AES-XTS key has 32, 48 or 64 bytes");
  }
  if (path == AesXtsPath::kPortable) return MakeXtsMode("aes", key);
  return MakeFastAesXtsMode(key, path);
}

std::unique_ptr<CipherMode> MakeAesXtsMode(std::span<const std::byte> key) {
  return MakeAesXtsMode(key, AvailableAesXtsPaths().back());
}

}  // namespace pellucid::crypto
