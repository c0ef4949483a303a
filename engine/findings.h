#ifndef PELLUCID_ENGINE_FINDINGS_H_
#define PELLUCID_ENGINE_FINDINGS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace pellucid {

// What a check can find wrong with an image.
enum class FindingKind {
  // Corruptions and leaks, as `qemu-img check` counts them.
  kEntry,          // An entry or a table that cannot be what it should.
  kRefcountTable,  // Refcounts cannot be where the refcount table says.
  kRefcount,       // A cluster is used more often than its refcount says.
  kCopiedFlag,     // A copied flag disagrees with the refcount.
  kLeak,           // A cluster is used less often than its refcount says.
  // Hazards: damage that `qemu-img check` has no eye for.
  kOverlap,     // A table is also used as something else.
  kCutOff,      // A table ends behind the end of the file.
  kForeignBit,  // A flag that this version of the format does not have.
  kLuksHeader,  // The LUKS header contradicts its format.
  kLuksCopy,    // One of the two copies of a LUKS2 header is damaged or old.
  kKeyslot,     // The key material of a keyslot has been overwritten.
  // Warnings: nothing is damaged.
  kPlaintext,  // Compressed clusters in an encrypted image.
  kMark,       // The image is dirty, marked as corrupt, or counts too far.
  kNoKeyslot,  // A LUKS header that no passphrase opens.
  kUnseen,     // Something could not be looked at.
};
inline constexpr size_t kFindingKinds =
    static_cast<size_t>(FindingKind::kUnseen) + 1;

enum class Severity { kCorruption, kLeak, kHazard, kWarning };

constexpr Severity SeverityOf(FindingKind kind) {
  if (kind < FindingKind::kLeak) return Severity::kCorruption;
  if (kind == FindingKind::kLeak) return Severity::kLeak;
  if (kind < FindingKind::kPlaintext) return Severity::kHazard;
  return Severity::kWarning;
}

struct Finding {
  FindingKind kind = FindingKind::kEntry;
  uint64_t offset = 0;  // Of what is wrong, in the file that the text names.
  std::string text;     // "FILE: FIELD (byte N) ...: what is wrong".
};

// What a check found wrong with an image. A hostile image can be wrong in more
// places than there is memory, so all are counted but only the first kMaxKept
// of each kind are kept. For one thread at a time.
class Findings {
 public:
  static constexpr size_t kMaxKept = 1000;

  // `make_text` is called only if the text is kept. `times` is how many
  // references meet the same fault.
  template <typename MakeText>
  void Add(FindingKind kind, uint64_t offset, MakeText&& make_text,
           uint64_t times = 1) {
    AddCount(kind, times);
    size_t& kept = kept_[static_cast<size_t>(kind)];
    if (kept == kMaxKept) return;
    ++kept;
    list_.push_back({.kind = kind, .offset = offset, .text = make_text()});
  }

  uint64_t count() const {
    uint64_t sum = 0;
    for (const uint64_t count : counts_) sum = Sum(sum, count);
    return sum;
  }
  uint64_t count(FindingKind kind) const {
    return counts_[static_cast<size_t>(kind)];
  }
  uint64_t count(Severity severity) const {
    uint64_t sum = 0;
    for (size_t i = 0; i < kFindingKinds; ++i) {
      if (SeverityOf(static_cast<FindingKind>(i)) == severity) {
        sum = Sum(sum, counts_[i]);
      }
    }
    return sum;
  }

  void Append(const Findings& others) {
    for (const Finding& other : others.list_) {
      size_t& kept = kept_[static_cast<size_t>(other.kind)];
      if (kept == kMaxKept) continue;
      ++kept;
      list_.push_back(other);
    }
    for (size_t i = 0; i < kFindingKinds; ++i) {
      counts_[i] = Sum(counts_[i], others.counts_[i]);
    }
  }

  // In the order in which they were found.
  const std::vector<Finding>& list() const { return list_; }

 private:
  static uint64_t Sum(uint64_t a, uint64_t b) {
    return b < UINT64_MAX - a ? a + b : UINT64_MAX;
  }
  void AddCount(FindingKind kind, uint64_t times) {
    uint64_t& count = counts_[static_cast<size_t>(kind)];
    count = Sum(count, times);
  }

  std::array<uint64_t, kFindingKinds> counts_{};
  std::array<size_t, kFindingKinds> kept_{};
  std::vector<Finding> list_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_FINDINGS_H_
