#ifndef PELLUCID_FUSE_MOUNT_SESSION_H_
#define PELLUCID_FUSE_MOUNT_SESSION_H_

#include <sys/stat.h>

#include <functional>
#include <memory>

#include "engine/block_device.h"
#include "fuse/error_log.h"
#include "fuse/mount_options.h"
#include "fuse/mountpoint.h"

namespace pellucid::fuse {

// One mount of one device, from mounting to unmounting. Only Stop() may be
// called from another thread.
class MountSession {
 public:
  // `image` is the status of the image file. Messages about requests that fail
  // go to `log_target`. Throws IoError.
  MountSession(std::unique_ptr<BlockDevice> device, const struct stat& image,
               Mountpoint mountpoint, MountOptions options,
               LogTarget log_target);
  MountSession(const MountSession&) = delete;
  MountSession& operator=(const MountSession&) = delete;
  ~MountSession();

  // Mounts, serves requests until somebody unmounts, Stop() is called or
  // SIGTERM, SIGINT or SIGHUP arrives, and leaves no mount behind: one that is
  // in use is detached, and its open files fail from then on.
  //
  // `on_ready` is called once, from another thread, when the kernel has made
  // contact; whoever looks at the mountpoint then waits at most until it has
  // returned. It must not throw.
  //
  // The signals are blocked in the calling thread meanwhile, and should be in
  // all other threads of the process. Throws Error if the mount fails, with a
  // remedy if one is known, or IoError if the kernel ends the conversation. To
  // be called once.
  void Run(const std::function<void()>& on_ready);

  // Makes Run() return. Safe to call from any thread, also before Run().
  void Stop();

 private:
  std::unique_ptr<BlockDevice> device_;
  const struct stat image_;
  const Mountpoint mountpoint_;
  const MountOptions options_;
  ErrorLog log_;
  int stop_fd_ = -1;  // An eventfd that becomes readable on Stop().
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_MOUNT_SESSION_H_
