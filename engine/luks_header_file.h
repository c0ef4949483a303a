#ifndef PELLUCID_ENGINE_LUKS_HEADER_FILE_H_
#define PELLUCID_ENGINE_LUKS_HEADER_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/autoclear_on_write.h"
#include "engine/block_device.h"
#include "engine/luks/keyslot_table.h"
#include "engine/luks/located_header.h"
#include "engine/open_image.h"
#include "engine/writable_file_device.h"

namespace pellucid {

// Where the bytes of a LUKS header stand in a host file.
struct HeaderRange {
  uint64_t offset = 0;
  uint64_t area_bytes = 0;  // Header and keyslots end before that.
  luks::Place place = luks::Place::kInPlace;
};

// Finds the header that `options` mean in `file`, which is the image or, if
// there is one, the detached header: in a raw volume, in a file of its own, or
// embedded in qcow2. Does not look whether it is intact. Throws Unsupported for
// a header among the guest data of a qcow2 image, UsageError if there is none,
// and what qcow2::ReadHeader() throws.
HeaderRange FindLuksHeader(BlockDevice& file, const OpenOptions& options);

// The same for a header that may be damaged or not there yet: where it would
// be. Looks at no LUKS header. Throws as above, but not for a missing header.
HeaderRange FindHeaderSpace(BlockDevice& file, const OpenOptions& options);

// A header that is to be changed, in its locked file.
struct WritableHeaderFile {
  std::unique_ptr<WritableFileDevice> file;
  std::unique_ptr<AutoclearOnWrite> guard;  // Over `file`, if that is qcow2.
  // Instead of both, if the header lies among the guest data of a qcow2 image
  // or in a partition: that data.
  std::unique_ptr<WritableDevice> guest;
  luks::WritableHeader header;        // Borrows one of the three.
  std::vector<std::string> warnings;  // What the user must know, for people.
};

// Opens the header that `options` mean, or the place for one. Throws as
// FindLuksHeader() or FindHeaderSpace(), and WritableFileDevice::Open() do,
// CorruptImage for a qcow2 image that is marked as corrupt, and Unsupported for
// a header among guest data that is itself encrypted or has an encrypted
// backing image.
WritableHeaderFile OpenHeaderForWriting(const OpenOptions& options);
WritableHeaderFile OpenHeaderSpaceForWriting(const OpenOptions& options);

// A header that is only read, in its file.
struct ReadableHeaderFile {
  std::unique_ptr<BlockDevice> file;
  HeaderRange range;
  luks::LocatedHeader located;  // Borrows `file`.
};

// Opens and reads the header that `options` mean, wherever it stands: here also
// among the guest data of a qcow2 image that is not encrypted by itself, or in
// a partition. Throws every kind of Error but WrongPassphrase.
ReadableHeaderFile OpenHeaderForReading(const OpenOptions& options);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_LUKS_HEADER_FILE_H_
