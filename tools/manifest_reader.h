#ifndef PELLUCID_TOOLS_MANIFEST_READER_H_
#define PELLUCID_TOOLS_MANIFEST_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/file_device.h"
#include "tools/copy_pieces.h"
#include "tools/manifest_format.h"

namespace pellucid::cli {

// What a manifest says of one chunk, or of a run of chunks that are zeros.
// Offsets are counted from the beginning of what it describes.
struct ManifestChunk {
  ByteRange range;
  // One for each algorithm of the header; empty: zeros.
  std::vector<std::vector<std::byte>> digests;

  bool is_zeros() const { return digests.empty(); }
};

// Reads a manifest (docs/manifest.md), which may be hostile: holds no more than
// a few lines of it. Safe to call from many threads.
class ManifestReader {
 public:
  // Reads all of the file for its checksum. Throws CorruptImage if that is
  // wrong or the first or last line is, Unsupported for another version or an
  // unknown algorithm, and as FileDevice::Open() does.
  explicit ManifestReader(const std::string& file);
  ManifestReader(const ManifestReader&) = delete;
  ManifestReader& operator=(const ManifestReader&) = delete;

  const ManifestHeader& header() const { return header_; }

  // The next chunks, without a gap: some zeros, or some with data, of at most
  // `max_bytes` together unless a single one has more. Empty behind the last.
  // Throws CorruptImage, naming the line, if they do not follow one another or
  // the totals at the end are others.
  std::vector<ManifestChunk> Next(uint64_t max_bytes);

 private:
  // Lines of the file from `position` up to `end`; throws CorruptImage for one
  // that is too long.
  class Lines {
   public:
    Lines(FileDevice& file, uint64_t end) : file_(file), end_(end) {}
    // The next, without its newline; false at the end.
    bool Next(std::string& line);
    uint64_t number() const { return number_; }  // Of the last, from 1 on.

   private:
    FileDevice& file_;
    const uint64_t end_;
    uint64_t position_ = 0;  // Of what is not in buffer_.
    std::string buffer_;
    size_t used_ = 0;  // Of buffer_.
    uint64_t number_ = 0;
  };

  [[noreturn]] void ThrowCorrupt(const std::string& what) const;
  uint64_t FindLastLine();
  void CheckChecksum(const std::string& expected);
  void ParseHeader(const std::string& line);
  void ParseTotals(const std::string& line);
  ManifestChunk ParseChunk(const std::string& line);
  // Checks that the chunk is where the last one ended, and counts it.
  void Follow(const ManifestChunk& chunk);
  bool ReadChunk(ManifestChunk& chunk);
  void KeepForLater(ManifestChunk chunk);
  // Leaves the first of many zeros, keeps the rest for later.
  void SplitZeros(ManifestChunk& zeros);

  const std::unique_ptr<FileDevice> file_;
  ManifestHeader header_;
  std::vector<size_t> digest_sizes_;
  uint64_t total_chunks_ = 0;
  uint64_t total_zero_bytes_ = 0;

  // Held while lines are parsed, which is far faster than hashing chunks.
  std::mutex mutex_;
  // Guarded by mutex_:
  const uint64_t last_line_;  // Where it begins.
  Lines lines_;
  ManifestChunk ahead_;  // Read, but too much for the last Next().
  bool has_ahead_ = false;
  uint64_t next_offset_ = 0;
  uint64_t chunks_ = 0;
  uint64_t zero_bytes_ = 0;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MANIFEST_READER_H_
