#include "fuse/init_reply.h"

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <utility>

#include "engine/io_error.h"

namespace pellucid::fuse {
namespace {

thread_local bool next_reply_is_init = false;

// Of fuse_init_out: before them stand three numbers of 32 bits.
constexpr size_t kFlagsOffset = offsetof(fuse_init_out, flags);

ssize_t Reply(int fd, iovec* pieces, int count, void*) {
  // pieces[0] is the header; the second holds all of fuse_init_out.
  if (std::exchange(next_reply_is_init, false) && count == 2 &&
      pieces[1].iov_len >= kFlagsOffset + sizeof(uint32_t)) {
    std::byte* const place =
        static_cast<std::byte*>(pieces[1].iov_base) + kFlagsOffset;
    uint32_t flags = 0;
    std::memcpy(&flags, place, sizeof flags);
    flags |= FUSE_HANDLE_KILLPRIV_V2;
    std::memcpy(place, &flags, sizeof flags);
  }
  return writev(fd, pieces, count);
}

ssize_t Receive(int fd, void* buffer, size_t size, void*) {
  return read(fd, buffer, size);
}

}  // namespace

void AddKillPrivilegesPromise(fuse_session* session) {
  fuse_custom_io io = {};
  io.writev = Reply;
  io.read = Receive;
  const int error =
      fuse_session_custom_io(session, &io, fuse_session_fd(session));
  if (error != 0) ThrowIoError(error < 0 ? -error : error, "libfuse");
}

void ExpectInitReply() { next_reply_is_init = true; }

}  // namespace pellucid::fuse
