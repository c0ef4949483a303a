#ifndef PELLUCID_FUSE_MOUNT_SESSION_H_
#define PELLUCID_FUSE_MOUNT_SESSION_H_

#include <sys/stat.h>

#include <functional>

#include "fuse/end_report.h"
#include "fuse/error_log.h"
#include "fuse/mount_attendant.h"
#include "fuse/mount_options.h"
#include "fuse/mounted_device.h"
#include "fuse/mountpoint.h"
#include "fuse/plaintext_filesystem.h"

namespace pellucid::fuse {

// One mount of one device, from mounting to unmounting; what was written to the
// device is durable at its end. Only Stop() may be called from another thread.
class MountSession {
 public:
  // `image` is the status of the image file. Messages about requests that fail
  // go to `log_target`. `attendant` is borrowed. Throws IoError, and
  // Unsupported if the options ask to write to a device that cannot be written.
  MountSession(MountedDevice device, const struct stat& image,
               Mountpoint mountpoint, MountOptions options,
               LogTarget log_target, MountAttendant& attendant);
  MountSession(const MountSession&) = delete;
  MountSession& operator=(const MountSession&) = delete;
  ~MountSession();

  // Mounts, serves requests until somebody unmounts, Stop() is called or
  // SIGTERM, SIGINT or SIGHUP arrives, and leaves no mount behind: one that is
  // in use is detached, and its open files fail from then on. What callers have
  // written until then, also what the kernel still has in its page cache, is in
  // the device, and that is flushed before this returns.
  //
  // `on_ready` is called once, from another thread, when the file can be used.
  // It must not throw.
  //
  // If the options say so, the process enters the sandbox (fuse/sandbox.h) when
  // the mount is there and before anything else happens, and stays in it; it
  // must have one thread then.
  //
  // The signals are blocked in the calling thread meanwhile, and should be in
  // all other threads of the process. Throws Error if the mount fails, with a
  // remedy if one is known, or IoError if the kernel ends the conversation or
  // the last flush fails, which the log is told as well. To be called once.
  void Run(const std::function<void()>& on_ready);

  // Makes Run() return. Safe to call from any thread, also before Run().
  void Stop();

 private:
  // Writes back, by way of `filesystem`, what the kernel has in its page cache,
  // and unmounts if nothing is in use. To be called while others serve.
  void PrepareEnd(PlaintextFilesystem& filesystem);
  // What the device has not made durable, or the kernel has lost, is told.
  void FlushDevice(int lost_pages_errno, EndReport& end_report);

  MountedDevice device_;
  const struct stat image_;
  const Mountpoint mountpoint_;
  const MountOptions options_;
  MountAttendant& attendant_;
  ErrorLog log_;
  int stop_fd_ = -1;  // An eventfd that becomes readable on Stop().
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_MOUNT_SESSION_H_
