// Throughput of every sector cipher and AES path, and PBKDF2 iterations.
// `cryptsetup benchmark` prints the same quantities for its own backend.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "crypto/aes_modes.h"
#include "crypto/hash.h"
#include "crypto/pbkdf2.h"
#include "crypto/sector_cipher.h"
#include "crypto/unsupported_algorithm.h"

namespace pellucid::crypto {
namespace {

constexpr size_t kBufferSize = 65536;

std::vector<std::byte> CountingBytes(size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i & 0xff);
  return bytes;
}

void SetBytes(benchmark::State& state) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) *
                          static_cast<int64_t>(kBufferSize));
}

using MakeAesMode = std::unique_ptr<CipherMode> (*)(
    std::span<const std::byte> key, AesPath path);

void AesModePath(benchmark::State& state, MakeAesMode make, AesPath path,
                 size_t key_size, size_t sector_size, bool decrypt) {
  const auto mode = make(CountingBytes(key_size), path);
  std::vector<std::byte> ivs(16 * kBufferSize / sector_size);
  std::vector<std::byte> buffer = CountingBytes(kBufferSize);
  for (auto _ : state) {
    if (decrypt) {
      mode->Decrypt(ivs, sector_size, buffer, buffer);
    } else {
      mode->Encrypt(ivs, sector_size, buffer, buffer);
    }
    benchmark::ClobberMemory();
  }
  SetBytes(state);
}

void Sectors(benchmark::State& state, const CipherSpec& spec, size_t key_size,
             size_t sector_size, bool decrypt) {
  const auto cipher =
      MakeSectorCipher(spec, CountingBytes(key_size), sector_size);
  std::vector<std::byte> buffer = CountingBytes(kBufferSize);
  for (auto _ : state) {
    if (decrypt) {
      cipher->Decrypt(0, buffer, buffer);
    } else {
      cipher->Encrypt(0, buffer, buffer);
    }
    benchmark::ClobberMemory();
  }
  SetBytes(state);
}

// One output block, in one thread; the count is of iterations a second.
void Pbkdf2Block(benchmark::State& state, const std::string& hash) {
  constexpr uint32_t kIterations = 20000;
  const std::vector<std::byte> passphrase = CountingBytes(16);
  const std::vector<std::byte> salt = CountingBytes(32);
  std::vector<std::byte> key(DigestSize(hash));
  for (auto _ : state) {
    Pbkdf2(hash, passphrase, salt, kIterations, key);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) *
                          kIterations);
}

void RegisterAesMode(const char* name, MakeAesMode make, size_t keys) {
  for (const AesPath path : AvailableAesPaths()) {
    for (const size_t cipher_key_size : std::initializer_list<size_t>{16, 32}) {
      for (const size_t sector_size :
           std::initializer_list<size_t>{512, 4096}) {
        for (const bool decrypt : {false, true}) {
          const size_t key_size = cipher_key_size * keys;
          benchmark::RegisterBenchmark(
              fmt::format("{}/{}/key:{}/sector:{}/{}", name, ToString(path),
                          key_size * 8, sector_size,
                          decrypt ? "decrypt" : "encrypt")
                  .c_str(),
              AesModePath, make, path, key_size, sector_size, decrypt);
        }
      }
    }
  }
}

bool Takes(const CipherSpec& spec, size_t key_size) {
  try {
    MakeSectorCipher(spec, CountingBytes(key_size));
    return true;
  } catch (const UnsupportedAlgorithm&) {
    return false;
  }
}

// Every cipher in every mode that takes it, with each key length and with the
// IV generators that cost something.
void RegisterSectorCiphers() {
  for (const char* cipher :
       {"aes", "serpent", "twofish", "camellia", "sm4", "aria", "cast5"}) {
    for (const char* mode : {"xts-plain64", "cbc-plain64", "cbc-essiv:sha256",
                             "cbc-eboiv", "ctr-plain64", "ecb", "lrw-benbi"}) {
      const CipherSpec spec = ParseCipherSpec(cipher, mode);
      for (const size_t key_size :
           std::initializer_list<size_t>{16, 32, 48, 64}) {
        if (!Takes(spec, key_size)) continue;
        for (const size_t sector_size :
             std::initializer_list<size_t>{512, 4096}) {
          for (const bool decrypt : {false, true}) {
            benchmark::RegisterBenchmark(
                fmt::format("sectors/{}/key:{}/sector:{}/{}", spec.ToString(),
                            key_size * 8, sector_size,
                            decrypt ? "decrypt" : "encrypt")
                    .c_str(),
                Sectors, spec, key_size, sector_size, decrypt);
          }
        }
      }
    }
  }
}

void RegisterPbkdf2() {
  for (const char* hash :
       {"sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160",
        "whirlpool", "sha3-256", "blake2b-512", "blake2s-256", "sm3", "md5"}) {
    benchmark::RegisterBenchmark(fmt::format("pbkdf2/{}", hash).c_str(),
                                 Pbkdf2Block, std::string(hash));
  }
}

}  // namespace
}  // namespace pellucid::crypto

int main(int argc, char** argv) {
  using namespace pellucid::crypto;  // NOLINT(google-build-using-namespace)
  RegisterAesMode("aes_xts", MakeAesXtsMode, 2);
  RegisterAesMode("aes_cbc", MakeAesCbcMode, 1);
  RegisterSectorCiphers();
  RegisterPbkdf2();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
