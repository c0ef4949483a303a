#ifndef PELLUCID_ENGINE_PLAINTEXT_REMAINS_H_
#define PELLUCID_ENGINE_PLAINTEXT_REMAINS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/byte_kind.h"
#include "engine/open_image.h"
#include "engine/volume_signature.h"
#include "engine/work_watch.h"

namespace pellucid {

// What a LUKS volume that was made over something else, and never filled, still
// has of it: the raw bytes of sectors that nobody has written since.
struct PlaintextRemains {
  enum class Place {
    kInFront,  // Of the ciphertext: beside header and keyslots, if it has them.
    kPayload,  // Where ciphertext belongs.
    kBehind,   // The end, which the volume does not show.
  };
  struct Signature {
    uint64_t offset = 0;
    VolumeSignature volume;
  };
  // Bytes that are neither random nor zeros. Fewer than 64 KiB of zeros between
  // may be among them.
  struct Range {
    uint64_t offset = 0;  // In the container's content: in a raw file.
    uint64_t length = 0;
    Place place = Place::kPayload;
    ByteKind kind = ByteKind::kMixed;   // kText if most of it is, or kMixed.
    std::vector<Signature> signatures;  // The first few, each once.
  };

  uint64_t examined_bytes = 0;
  uint64_t zero_bytes = 0;    // Never written, or not stored at all: no leak.
  uint64_t plain_bytes = 0;   // Those of all ranges, without zeros between.
  std::vector<Range> ranges;  // The first of them, by offset.
  bool has_more_ranges = false;
};

// Judges raw bytes in any order. Safe to call from many threads, but for
// Take().
class RemainsCollector {
 public:
  static constexpr size_t kMaxRanges = 100;

  // `bytes` stand at `offset`; each byte once.
  void Note(uint64_t offset, std::span<const std::byte> bytes,
            PlaintextRemains::Place place);
  void NoteZeros(uint64_t length);

  uint64_t examined_bytes() const;
  PlaintextRemains Take();

 private:
  struct Run {
    uint64_t end = 0;
    PlaintextRemains::Place place = PlaintextRemains::Place::kPayload;
    std::array<uint64_t, kByteKinds> bytes = {};  // By their kind.
    std::vector<PlaintextRemains::Signature> signatures = {};
  };
  using Runs = std::map<uint64_t, Run>;  // By their beginning.

  void Insert(uint64_t begin, Run run);
  static void Append(Run& run, const Run& next);

  mutable std::mutex mutex_;
  PlaintextRemains found_;  // Without ranges, until Take().
  Runs runs_;
};

// Looks through a LUKS volume for what is not encrypted, without a key: all of
// it but the header's own fields and segments that are stored as plaintext
// while the volume is reencrypted. What `seen` has noted of the payload, if
// that is all of it, is not read again; otherwise `seen` begins anew. `watch`
// counts bytes of the volume.
//
// Compressed and encrypted remains are not told from ciphertext. Nothing for
// what is no LUKS volume or lies in a container that encrypts or has a backing
// file, and for ciphers that make ciphertext of which the same is true: ECB,
// CTR and those without an IV show the pattern of what they encrypt. Throws
// every kind of Error but WrongPassphrase, and what `watch` throws.
std::optional<PlaintextRemains> FindPlaintextRemains(
    const OpenOptions& options, RemainsCollector& seen,
    const WorkWatch& watch = {});

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_PLAINTEXT_REMAINS_H_
