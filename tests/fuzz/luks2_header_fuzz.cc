// Both copies of a LUKS2 binary header with their JSON. The input says
// where the header stands and which checksums are put right, without which
// nearly every change would end there.

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "crypto/hash.h"
#include "crypto/unsupported_algorithm.h"
#include "engine/big_endian.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/fuzzed_header.h"

using namespace pellucid;

namespace {

constexpr uint64_t kLeastCopy = 16 << 10;
constexpr uint64_t kMostCopy = 4 << 20;
constexpr size_t kHdrSize = 8;
constexpr size_t kChecksumAlg = 72;
constexpr size_t kChecksum = 448;
constexpr size_t kChecksumBytes = 64;

void MendChecksum(SparseDevice& file, uint64_t at) {
  std::vector<std::byte> copy(512);
  if (at + copy.size() > file.size()) return;
  file.Read(at, copy);
  if (std::memcmp(copy.data(), "LUKS", 4) != 0 &&
      std::memcmp(copy.data(), "SKUL", 4) != 0) {
    return;
  }
  const auto size = LoadBigEndian<uint64_t>(copy, kHdrSize);
  if (size < kLeastCopy || size > kMostCopy || size > file.size() - at) return;
  copy.resize(size);
  file.Read(at, copy);
  const auto field = std::span(copy).subspan(kChecksum, kChecksumBytes);
  std::ranges::fill(field, std::byte{0});
  char name[33] = {};
  std::memcpy(name, copy.data() + kChecksumAlg, 32);
  try {
    const auto hasher = crypto::MakeHasher(name);
    if (hasher->digest_size() > kChecksumBytes) return;
    hasher->Update(copy);
    hasher->Final(field.first(hasher->digest_size()));
  } catch (const crypto::UnsupportedAlgorithm&) {
    return;
  }
  file.Write(at + kChecksum, field);
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  SparseDevice file({data, size});
  const unsigned choice = SparseDevice::ForTarget({data, size});
  if ((choice & 2) == 0) MendChecksum(file, 0);
  if ((choice & 4) == 0) {
    for (uint64_t at = kLeastCopy; at <= kMostCopy; at *= 2) {
      MendChecksum(file, at);
    }
  }
  ExerciseHeader(
      file, (choice & 1) == 0 ? luks::Place::kInPlace : luks::Place::kDetached,
      choice);
  return 0;
}
