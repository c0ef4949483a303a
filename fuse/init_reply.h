#ifndef PELLUCID_FUSE_INIT_REPLY_H_
#define PELLUCID_FUSE_INIT_REPLY_H_

struct fuse_session;

namespace pellucid::fuse {

// Before each write(2) the kernel asks a FUSE server for the extended attribute
// security.capability, which a write has to remove; this costs more than the
// write. It does not ask a server that promises FUSE_HANDLE_KILLPRIV_V2: to
// remove it itself, with the set-user-id bits. Our file can have neither, so
// the promise is kept. libfuse 3.14 cannot make it.
//
// Makes `session`, which is mounted but not served yet, add the promise to the
// answer to INIT; kernels before 5.11 ignore it. Throws IoError.
void AddKillPrivilegesPromise(fuse_session* session);

// To be called by the handler of INIT: the next reply of this thread is the
// answer.
void ExpectInitReply();

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_INIT_REPLY_H_
