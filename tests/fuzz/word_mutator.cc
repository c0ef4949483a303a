// Mutates images in the form of SparseDevice: besides what libFuzzer does,
// changes whole big-endian words, as which all of qcow2 and LUKS is stored, to
// values that mean something there. Linked into the targets that read images.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t max_size, unsigned seed);

namespace {

constexpr size_t kSizeBytes = 8;
constexpr size_t kRecord = 4 + 512;
// The others may tell which file it belongs to (host_files.h).
constexpr uint32_t kSectorBits = (1U << 30) - 1;
constexpr uint64_t kFlags = uint64_t{3} << 62 | 1;

uint64_t Load(const uint8_t* at, size_t width) {
  uint64_t value = 0;
  for (size_t i = 0; i < width; ++i) value = value << 8 | at[i];
  return value;
}

void Store(uint8_t* at, size_t width, uint64_t value) {
  for (size_t i = width; i-- > 0; value >>= 8) at[i] = value & 0xff;
}

class WordMutator {
 public:
  WordMutator(uint8_t* data, size_t size, unsigned seed)
      : data_(data), records_((size - kSizeBytes) / kRecord), random_(seed) {}

  void Mutate() {
    const size_t width = Below(4) == 0 ? (Below(2) == 0 ? 4 : 2) : 8;
    uint8_t* const word = AnyWord(width);
    Store(word, width, NewValue(Load(word, width), width));
  }

 private:
  uint64_t Below(uint64_t end) { return random_() % end; }

  // Mostly one that is in use.
  uint8_t* AnyWord(size_t width) {
    uint8_t* word = nullptr;
    for (int i = 0; i < 20; ++i) {
      word = data_ + kSizeBytes + Below(records_) * kRecord + 4 +
             Below(512 / width) * width;
      if (Load(word, width) != 0) break;
    }
    return word;
  }

  uint64_t AnyPlace() {
    uint32_t sector = 0;
    std::memcpy(&sector, data_ + kSizeBytes + Below(records_) * kRecord,
                sizeof sector);
    return uint64_t{sector & kSectorBits} * 512;
  }

  uint64_t NewValue(uint64_t old, size_t width) {
    const uint64_t bits = width * 8;
    switch (Below(12)) {
      case 0:
        return 0;
      case 1:
        return 1;
      case 2:
        return UINT64_MAX;
      case 3:
        return old + 1;
      case 4:
        return old - 1;
      case 5:
        return old ^ uint64_t { 1 } << Below(bits);
      case 6:
        return uint64_t{1} << Below(bits);
      case 7:
        return Load(AnyWord(width), width);
      case 8:
        return AnyPlace();
      case 9:
        return AnyPlace() | uint64_t{1} << 63;
      case 10:
        return (old & ~kFlags) | (random_() & kFlags);
      default:
        return AnyPlace() | (random_() & kFlags);
    }
  }

  uint8_t* const data_;
  const size_t records_;
  std::mt19937_64 random_;
};

}  // namespace

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                               unsigned seed) {
  if (size < kSizeBytes + kRecord || seed % 3 == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  WordMutator mutator(data, size, seed);
  for (unsigned i = 0; i <= seed / 3 % 4; ++i) mutator.Mutate();
  return size;
}
