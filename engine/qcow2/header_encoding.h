#ifndef PELLUCID_ENGINE_QCOW2_HEADER_ENCODING_H_
#define PELLUCID_ENGINE_QCOW2_HEADER_ENCODING_H_

#include <cstddef>
#include <string>
#include <vector>

#include "engine/qcow2/header.h"

namespace pellucid::qcow2 {

// The first bytes of an image with this header: its fields, extensions and the
// name of its backing file, at most one cluster. The inverse of ReadHeader(),
// but for backing_file_offset, backing_file_size and header_length, which it
// chooses itself, and bitmaps, which it leaves out. Names of features go in if
// there is room. Throws UsageError, which starts with `file_name`, for names
// that the first cluster does not hold or the format does not allow.
std::vector<std::byte> EncodeHeader(const Header& header,
                                    const std::string& file_name);

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_HEADER_ENCODING_H_
