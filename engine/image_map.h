#ifndef PELLUCID_ENGINE_IMAGE_MAP_H_
#define PELLUCID_ENGINE_IMAGE_MAP_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/open_image.h"

namespace pellucid {

enum class MapKind {
  kUnallocated,  // No file of the chain has it; reads as zeros.
  kZero,         // Is said to be zeros.
  kData,
  kCompressed,
};

// A run of guest bytes and what is known of them without any key.
struct MapExtent {
  uint64_t start = 0;
  uint64_t length = 0;
  MapKind kind = MapKind::kUnallocated;
  unsigned depth = 0;      // Of the file that decides: 0 is the image, 1 its
                           // backing file and so on.
  bool encrypted = false;  // kData: the host file has ciphertext of the file's
                           // own encryption. Compressed data never is.
  bool shared = false;     // kData, kCompressed: another state of that file, a
                           // snapshot or the active one, has the same clusters.
  // Where the first byte is, the others behind it; also of a place that is kept
  // for zeros. Empty if there is none or compression or a LUKS volume (a
  // backing file of format "luks") is in between.
  std::optional<uint64_t> host_offset = {};
};

// Where the parts of an image's disk are, as the tables of its backing chain
// have it. Needs no key and decrypts nothing: a LUKS volume that fills the disk
// of an image is data like other data. Changes nothing. For one thread.
class ImageMap {
 public:
  // Opens the image and all that it names, read-only. Throws every kind of
  // Error but WrongPassphrase.
  explicit ImageMap(const OpenOptions& options);
  ~ImageMap();

  uint64_t size() const;
  // The host file that holds the data of a depth: the image, the backing file,
  // or its external data file.
  const std::filesystem::path& file(unsigned depth) const;
  // What is wrong without keeping the image from being mapped, for people.
  const std::vector<std::string>& warnings() const { return warnings_; }

  // Calls `each` with the extents from the first byte to the last, neighbours
  // that one extent can describe joined. Time: as there are table entries and
  // extents, whatever the virtual size. Throws CorruptImage, IoError and what
  // `each` throws.
  void ForEachExtent(const std::function<void(const MapExtent&)>& each);

 private:
  class Layer;

  // The extent at `at`, as far as one look tells.
  MapExtent At(uint64_t at);

  std::vector<std::unique_ptr<Layer>> layers_;  // From the top down.
  std::vector<std::string> warnings_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_IMAGE_MAP_H_
