#ifndef PELLUCID_ENGINE_QCOW2_CREATE_H_
#define PELLUCID_ENGINE_QCOW2_CREATE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/qcow2/header.h"
#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// What a new image shall be like.
struct CreateOptions {
  uint64_t size = 0;     // Of the guest, a multiple of 512.
  uint32_t version = 3;  // 2 has none of the features below but the names.
  uint64_t cluster_size = 64 << 10;  // A power of 2 from 512 to 2 MiB.
  unsigned refcount_bits = 16;       // A power of 2 from 1 to 64.
  bool extended_l2 = false;
  bool lazy_refcounts = false;
  CompressionType compression_type = CompressionType::kZlib;
  std::string backing_file;
  std::string backing_format;
  std::string data_file;  // External data file; whoever calls makes it.
  bool data_file_raw = false;
  // Room for an embedded LUKS header; 0: the image is not encrypted.
  uint64_t crypto_header_bytes = 0;
};

// An image in which nothing is allocated yet: where everything stands.
// Immutable, so safe to use from many threads.
class EmptyImage {
 public:
  // Writes a LUKS header into its room in the image.
  using WriteCryptoHeader = std::function<void(WritableDevice& area)>;

  // `file_name` is for messages. Throws UsageError for options that the format
  // does not allow, saying what it does.
  EmptyImage(const CreateOptions& options, const std::string& file_name);

  const Header& header() const { return header_; }
  // How large the file has to be, in whole clusters.
  uint64_t file_bytes() const;

  // Makes the image at the start of `file`, which has file_bytes(). What was
  // there is gone. The magic comes last, behind a flush: before that the file
  // is no qcow2 image to anybody. `write_crypto_header` is called if there is
  // room for such a header. Throws IoError, and what `write_crypto_header`
  // throws.
  void WriteTo(WritableDevice& file,
               const WriteCryptoHeader& write_crypto_header) const;

 private:
  void PlaceTables(uint64_t crypto_header_bytes);
  void WriteRefcounts(WritableDevice& file) const;

  Header header_;
  uint64_t clusters_ = 0;  // Of the whole file.
  uint64_t refcount_blocks_ = 0;
  uint64_t refcount_blocks_offset_ = 0;
  std::vector<std::byte> encoded_header_;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_CREATE_H_
