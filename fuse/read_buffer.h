#ifndef PELLUCID_FUSE_READ_BUFFER_H_
#define PELLUCID_FUSE_READ_BUFFER_H_

#include <cstddef>
#include <span>

namespace pellucid::fuse {

// `size` bytes on a page boundary that belong to the calling thread until its
// next call. They are the same ones every time, so that a request allocates
// nothing. Throws std::bad_alloc.
std::span<std::byte> ReadBufferOfThisThread(size_t size);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_READ_BUFFER_H_
