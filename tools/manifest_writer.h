#ifndef PELLUCID_TOOLS_MANIFEST_WRITER_H_
#define PELLUCID_TOOLS_MANIFEST_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "crypto/hash.h"
#include "engine/writable_device.h"
#include "tools/copy_pieces.h"
#include "tools/manifest_format.h"
#include "tools/ordered_hashes.h"

namespace pellucid::cli {

// Writes the hash of every chunk of what is copied (docs/manifest.md). What it
// writes depends on the bytes only, not on the threads nor on what is stored as
// a hole. Safe to call from many threads, but for Finish().
class ManifestWriter {
 public:
  // Borrows `file`, which is empty. Throws IoError.
  ManifestWriter(WritableDevice& file, const ManifestHeader& header);
  ManifestWriter(const ManifestWriter&) = delete;
  ManifestWriter& operator=(const ManifestWriter&) = delete;

  // How the described range has to be cut for Add().
  size_t piece_length() const { return piece_length_; }

  // The bytes of a piece, or that they are zeros. Pieces may come in any order.
  // They begin at multiples of piece_length(), counted from the beginning of
  // the range. Hash in the calling thread. Throw IoError.
  void Add(uint64_t sequence, uint64_t offset,
           std::span<const std::byte> bytes);
  void AddZeros(uint64_t sequence, uint64_t offset, uint64_t length);

  // After all pieces: writes the last line, with the hashes of the whole if
  // there are any. Does not flush. Throws IoError.
  void Finish(const std::vector<Digest>& whole);

 private:
  // A chunk with data in it, or a run of zeros.
  struct Chunk {
    ByteRange range;
    std::vector<std::string> digests;  // Empty: zeros.
  };

  void Put(uint64_t sequence, std::vector<Chunk> chunks);
  // These three require mutex_.
  void WriteChunk(const Chunk& chunk);
  void EndZeros();
  void WriteLine(std::string_view line);
  void WriteBuffer();

  WritableDevice& file_;
  const ManifestHeader header_;
  const size_t piece_length_;

  std::mutex mutex_;  // Held while lines are written, to keep their order.
  // Guarded by mutex_:
  std::map<uint64_t, std::vector<Chunk>> early_;  // Their turn is to come.
  uint64_t next_sequence_ = 0;
  ByteRange zeros_;  // That could go on; nothing of it is written.
  uint64_t chunks_ = 0;
  uint64_t zero_bytes_ = 0;
  std::string buffer_;
  uint64_t written_ = 0;
  const std::unique_ptr<crypto::Hasher> checksum_;  // Of the lines.
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MANIFEST_WRITER_H_
