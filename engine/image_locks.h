#ifndef PELLUCID_ENGINE_IMAGE_LOCKS_H_
#define PELLUCID_ENGINE_IMAGE_LOCKS_H_

#include <filesystem>

namespace pellucid {

// QEMU's image locks: open-file-description locks on single bytes that say
// what each opener does and what it does not tolerate. They go with the file
// description, when its last descriptor is closed.

// Says on `fd` that we read, and that nobody may write or resize meanwhile.
// Throws ImageLocked, naming the holder where /proc tells, if somebody does;
// then `fd` holds no lock. A host file system without such locks is no error.
void LockForReading(int fd, const std::filesystem::path& file);

// Says on `fd`, which is open for writing, that we read, write and resize, and
// that nobody else may write or resize meanwhile. Throws ImageLocked as above,
// also if somebody reads who does not tolerate a writer: such a holder is told
// apart by ImageLocked::readers_may_join().
void LockForWriting(int fd, const std::filesystem::path& file);

// Says only that we read and refuses nothing: for --force-share.
void LockForForcedReading(int fd);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_IMAGE_LOCKS_H_
