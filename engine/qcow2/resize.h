#ifndef PELLUCID_ENGINE_QCOW2_RESIZE_H_
#define PELLUCID_ENGINE_QCOW2_RESIZE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/qcow2/header.h"
#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// Changes of the size of the disk in a qcow2 image whose file is locked for us
// alone. Sizes are bytes, multiples of 512. A power cut leaves the old size or
// the new one; what is durable of the disk stays as it was. Snapshots keep
// their own size. Dirty bitmaps are dropped. `file_name` is for messages.
//
// Both throw Unsupported for an image of version 2 whose snapshots do not tell
// their own size, CorruptImage for one with damaged tables, UsageError for a
// size that the format does not reach, and IoError.

struct GrowParts {
  ResizableDevice& file;
  ResizableDevice* data_file = nullptr;  // Null unless external.
  std::string file_name;
  // False if the clusters are encrypted and the key is not there. Then what
  // the last cluster has behind the disk's end must read as zeros already, in
  // version 2 there must be no backing file that reaches behind that, and no
  // data file.
  bool can_write_data = true;
  // The disk as `header` describes it, which may be larger than the file says:
  // over the same devices, and writable.
  std::function<std::unique_ptr<WritableDevice>(const Header& header)> open;
};

// Makes the disk larger. The new bytes read as zeros, whatever a backing file
// or the rest of the last cluster has there.
void GrowDisk(const GrowParts& parts, uint64_t size);

// Makes the disk smaller, and gives back the space behind its new end.
// `data_file` is null unless external.
void ShrinkDisk(ResizableDevice& file, ResizableDevice* data_file,
                const std::string& file_name, uint64_t size);

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_RESIZE_H_
