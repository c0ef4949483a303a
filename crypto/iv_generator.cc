#include "crypto/iv_generator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "crypto/block_cipher.h"
#include "crypto/byte_order.h"
#include "crypto/hash.h"
#include "crypto/named_table.h"
#include "crypto/secret_bytes.h"
#include "crypto/unsupported_algorithm.h"

namespace pellucid::crypto {
namespace {

struct IvParameters {
  const CipherSpec& spec;
  std::span<const std::byte> key;
  size_t block_size;
  size_t sector_size;
};

// Writes the IV of one sector over zeros.
using WriteNumber = void (*)(uint64_t sector, std::span<std::byte> iv);

void CopyAtStart(std::span<const std::byte> number, std::span<std::byte> iv) {
  std::memcpy(iv.data(), number.data(), number.size());
}

void CopyAtEnd(std::span<const std::byte> number, std::span<std::byte> iv) {
  std::ranges::copy(number, iv.last(number.size()).begin());
}

void WriteNothing(uint64_t, std::span<std::byte>) {}

void WritePlain(uint64_t sector, std::span<std::byte> iv) {
  CopyAtStart(LittleEndian(static_cast<uint32_t>(sector)), iv);
}

void WritePlain64(uint64_t sector, std::span<std::byte> iv) {
  CopyAtStart(LittleEndian(sector), iv);
}

void WritePlain64Be(uint64_t sector, std::span<std::byte> iv) {
  CopyAtEnd(BigEndian(sector), iv);
}

// Counts cipher blocks instead of sectors, from 1: what LRW wants.
void WriteBenbi(uint64_t sector, std::span<std::byte> iv) {
  const uint64_t blocks_per_512 = 512 / iv.size();
  CopyAtEnd(BigEndian(sector * blocks_per_512 + 1), iv);
}

// An IV that only depends on the sector number.
template <WriteNumber write>
class NumberIv : public IvGenerator {
 public:
  explicit NumberIv(size_t block_size) : block_size_(block_size) {}

  void Generate(uint64_t first_sector, uint64_t sector_step,
                std::span<std::byte> ivs) const override {
    std::ranges::fill(ivs, std::byte{0});
    uint64_t sector = first_sector;
    for (size_t i = 0; i < ivs.size(); i += block_size_) {
      write(sector, ivs.subspan(i, block_size_));
      sector += sector_step;
    }
  }

 private:
  size_t block_size_;
};

// A little-endian number, encrypted: ESSIV and EBOIV.
class EncryptedIv : public IvGenerator {
 public:
  EncryptedIv(BlockCipher cipher, uint64_t unit)
      : cipher_(std::move(cipher)),
        numbers_(cipher_.block_size()),
        unit_(unit) {}

  void Generate(uint64_t first_sector, uint64_t sector_step,
                std::span<std::byte> ivs) const override {
    numbers_.Generate(first_sector * unit_, sector_step * unit_, ivs);
    cipher_.Encryption().Process(ivs, ivs);
  }

 private:
  BlockCipher cipher_;
  NumberIv<WritePlain64> numbers_;
  uint64_t unit_;
};

template <WriteNumber write>
std::unique_ptr<IvGenerator> NewNumberIv(const IvParameters& parameters) {
  return std::make_unique<NumberIv<write>>(parameters.block_size);
}

// The key of ESSIV is the hash of the whole volume key.
std::unique_ptr<IvGenerator> NewEssiv(const IvParameters& parameters) {
  const CipherSpec& spec = parameters.spec;
  const std::unique_ptr<Hasher> hasher = MakeHasher(spec.iv_hash);
  SecretBytes salt(hasher->digest_size());
  if (!TakesKeySize(spec.cipher, salt.size())) {
    throw UnsupportedAlgorithm(
        fmt::format("{}: the {}-byte digest of {} is not a key length of {} "
                    "(supported: hashes with digests of {} bytes)",
                    spec.ToString(), salt.size(), spec.iv_hash, spec.cipher,
                    fmt::join(KeySizes(spec.cipher), ", ")));
  }
  hasher->Update(parameters.key);
  hasher->Final(salt.bytes());
  return std::make_unique<EncryptedIv>(BlockCipher(spec.cipher, salt.bytes()),
                                       1);
}

// dm-crypt multiplies the number of 512-byte sectors by the size of the
// volume's sectors. It is BitLocker's IV, only meant for CBC: with another mode
// dm-crypt would encrypt the offset in that mode.
std::unique_ptr<IvGenerator> NewEboiv(const IvParameters& parameters) {
  const CipherSpec& spec = parameters.spec;
  if (spec.mode != "cbc") {
    throw UnsupportedAlgorithm(fmt::format(
        "{}: the IV generator eboiv is only for mode cbc (supported: {}-cbc-"
        "eboiv)",
        spec.ToString(), spec.cipher));
  }
  return std::make_unique<EncryptedIv>(BlockCipher(spec.cipher, parameters.key),
                                       parameters.sector_size);
}

struct IvEntry {
  std::string_view name;
  std::unique_ptr<IvGenerator> (*make)(const IvParameters& parameters);
};

constexpr IvEntry kIvGenerators[] = {
    {"null", NewNumberIv<WriteNothing>},
    {"plain", NewNumberIv<WritePlain>},
    {"plain64", NewNumberIv<WritePlain64>},
    {"plain64be", NewNumberIv<WritePlain64Be>},
    {"essiv", NewEssiv},
    {"benbi", NewNumberIv<WriteBenbi>},
    {"eboiv", NewEboiv},
};

const IvEntry& FindIvGenerator(std::string_view name) {
  return FindByName(kIvGenerators, "IV generator", name);
}

}  // namespace

std::unique_ptr<IvGenerator> MakeIvGenerator(const CipherSpec& spec,
                                             std::span<const std::byte> key,
                                             size_t block_size,
                                             size_t sector_size) {
  return FindIvGenerator(spec.iv).make({spec, key, block_size, sector_size});
}

void RequireIvGenerator(std::string_view name) { FindIvGenerator(name); }

}  // namespace pellucid::crypto
