#ifndef PELLUCID_ENGINE_QCOW2_BITMAP_DIRECTORY_H_
#define PELLUCID_ENGINE_QCOW2_BITMAP_DIRECTORY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/qcow2/header.h"

namespace pellucid::qcow2 {

// Where the dirty bitmaps of an image are kept ("Bitmaps" in the
// specification).
struct BitmapDirectory {
  struct Entry {
    uint64_t entry_offset = 0;  // Of this entry in the file.
    uint64_t bitmap_table_offset = 0;
    uint32_t bitmap_table_size = 0;  // In 8-byte entries.
  };
  uint64_t offset = 0;
  uint64_t size = 0;  // In bytes, 0 without bitmaps.
  std::vector<Entry> entries;
};

// Reads the directory; an empty one if the image has none or its autoclear bit
// says that what is there no longer counts. Where the tables stand is not
// checked. Throws CorruptImage and IoError.
BitmapDirectory ReadBitmapDirectory(BlockDevice& file,
                                    const std::string& file_name,
                                    const Header& header);

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_BITMAP_DIRECTORY_H_
