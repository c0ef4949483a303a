#include "crypto/aes_modes.h"

#include <new>
#include <stdexcept>

#include "crypto/aes_kernels.h"
#include "crypto/cpu_features.h"
#include "crypto/masked_mode.h"
#include "crypto/nist_modes.h"
#include "crypto/secret_bytes.h"

namespace pellucid::crypto {
namespace {

bool IsAesKeySize(size_t size) {
  return size == 16 || size == 24 || size == 32;
}

#if defined(__x86_64__)

const AesKernels& KernelsOf(AesPath path) {
  switch (path) {
    case AesPath::kAesNi:
      return kAesNiKernels;
    case AesPath::kVaes256:
      return kVaes256Kernels;
    case AesPath::kVaes512:
      return kVaes512Kernels;
    case AesPath::kPortable:
      break;
  }
  throw std::invalid_argument("the portable path has no kernels");
}

class AesMode : public CipherMode {
 public:
  // `tweak_key` is empty with CBC.
  AesMode(AesFunction encrypt, AesFunction decrypt,
          std::span<const std::byte> key, std::span<const std::byte> tweak_key)
      : encrypt_(encrypt),
        decrypt_(decrypt),
        key_pages_(sizeof(AesModeKeys)),
        keys_(*new (key_pages_.bytes().data()) AesModeKeys) {
    ExpandEncryptionKey(key, keys_.encryption);
    InvertRoundKeys(keys_.encryption, keys_.decryption);
    if (!tweak_key.empty()) ExpandEncryptionKey(tweak_key, keys_.tweak);
  }

  size_t block_size() const override { return 16; }

  void Encrypt(std::span<std::byte> ivs, size_t sector_size,
               std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    encrypt_(Request(ivs, sector_size, in, out));
  }

  void Decrypt(std::span<std::byte> ivs, size_t sector_size,
               std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    decrypt_(Request(ivs, sector_size, in, out));
  }

 private:
  AesRequest Request(std::span<const std::byte> ivs, size_t sector_size,
                     std::span<const std::byte> in,
                     std::span<std::byte> out) const {
    return {keys_,       ivs.data(), in.size() / sector_size,
            sector_size, in.data(),  out.data()};
  }

  AesFunction encrypt_;
  AesFunction decrypt_;
  SecretBytes key_pages_;
  AesModeKeys& keys_;  // In key_pages_.
};

std::unique_ptr<CipherMode> MakeFastXtsMode(std::span<const std::byte> key,
                                            AesPath path) {
  const AesKernels& kernels = KernelsOf(path);
  const size_t half = key.size() / 2;
  return std::make_unique<AesMode>(kernels.xts_encrypt, kernels.xts_decrypt,
                                   key.first(half), key.last(half));
}

std::unique_ptr<CipherMode> MakeFastCbcMode(std::span<const std::byte> key,
                                            AesPath path) {
  const AesKernels& kernels = KernelsOf(path);
  return std::make_unique<AesMode>(kernels.cbc_encrypt, kernels.cbc_decrypt,
                                   key, std::span<const std::byte>());
}

#else

std::unique_ptr<CipherMode> MakeFastXtsMode(std::span<const std::byte>,
                                            AesPath) {
  throw std::invalid_argument("only the portable path is available");
}

std::unique_ptr<CipherMode> MakeFastCbcMode(std::span<const std::byte>,
                                            AesPath) {
  throw std::invalid_argument("only the portable path is available");
}

#endif

}  // namespace

std::string_view ToString(AesPath path) {
  switch (path) {
    case AesPath::kPortable:
      return "portable";
    case AesPath::kAesNi:
      return "AES-NI";
    case AesPath::kVaes256:
      return "VAES-256";
    case AesPath::kVaes512:
      return "VAES-512";
  }
  return "";
}

std::vector<AesPath> AvailableAesPaths() {
  const CpuFeatures& cpu = GetCpuFeatures();
  std::vector<AesPath> paths = {AesPath::kPortable};
  if (cpu.aes_ni) paths.push_back(AesPath::kAesNi);
  if (cpu.vaes256) paths.push_back(AesPath::kVaes256);
  if (cpu.vaes512) paths.push_back(AesPath::kVaes512);
  return paths;
}

std::unique_ptr<CipherMode> MakeAesXtsMode(std::span<const std::byte> key,
                                           AesPath path) {
  if (key.size() % 2 != 0 || !IsAesKeySize(key.size() / 2)) {
    throw std::invalid_argument("an AES-XTS key has 32, 48 or 64 bytes");
  }
  if (path == AesPath::kPortable) return MakeXtsMode("aes", key);
  return MakeFastXtsMode(key, path);
}

std::unique_ptr<CipherMode> MakeAesCbcMode(std::span<const std::byte> key,
                                           AesPath path) {
  if (!IsAesKeySize(key.size())) {
    throw std::invalid_argument("an AES key has 16, 24 or 32 bytes");
  }
  if (path == AesPath::kPortable) return MakeCbcMode("aes", key);
  return MakeFastCbcMode(key, path);
}

}  // namespace pellucid::crypto
