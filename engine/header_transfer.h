#ifndef PELLUCID_ENGINE_HEADER_TRANSFER_H_
#define PELLUCID_ENGINE_HEADER_TRANSFER_H_

#include <filesystem>
#include <string>
#include <vector>

#include "engine/luks/header_copy.h"
#include "engine/open_image.h"

namespace pellucid {

// LUKS headers on their way between images and files.

struct DetachedHeader {
  luks::HeaderCopy copy;
  std::vector<std::string> warnings;  // What the user must know, for people.
};

// The header that `options` mean, as it is. Throws every kind of Error but
// WrongPassphrase.
DetachedHeader CopyHeaderOf(const OpenOptions& options);

// The same as a header that opens the payload without the image: of a volume
// with the header in place, or embedded in a qcow2 image whose data is in an
// external raw file. Throws Unsupported for other embedded headers, whose
// payload is encrypted by its place in the qcow2 file.
DetachedHeader DetachHeaderOf(const OpenOptions& options);

// Makes `file`, for its owner alone, with `copy` in it. If that cannot be
// completed, a file that was there before is as it was. Throws as NewFile does.
void WriteHeaderFile(const std::filesystem::path& file,
                     const luks::HeaderCopy& copy, bool overwrite);

enum class Target {
  kAsItWas,      // The image or the header file that `options` mean.
  kInFrontOnly,  // A raw volume with room in front of its payload.
};

// Writes `copy` where the header of `options` is, or was. Unless `force`,
// refuses to replace a header with another UUID, version or payload offset, or
// anything that is neither a header nor zeros; always refuses to write into the
// payload. Throws UsageError, Unsupported, ImageLocked, CorruptImage and
// IoError.
void RestoreHeader(const OpenOptions& options, const luks::HeaderCopy& copy,
                   Target target, bool force);

// Makes both copies of a LUKS2 header alike again, from the newest; false if
// they are. `force` also believes a second copy when the first has become
// something else. Throws as RestoreHeader() does.
bool RepairHeader(const OpenOptions& options, bool force);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_HEADER_TRANSFER_H_
