#ifndef PELLUCID_FUSE_MOUNT_ATTENDANT_H_
#define PELLUCID_FUSE_MOUNT_ATTENDANT_H_

#include <sys/types.h>

#include <cstdint>
#include <ctime>
#include <mutex>
#include <string>

#include "fuse/mountpoint.h"
#include "fuse/own_mount.h"

namespace pellucid::fuse {

// A process beside the serving one that does what the serving one may not do
// once it is confined (fuse/sandbox.h): it reaches the mount by its path, ends
// it, and writes to the system log. It is a child that was forked before there
// was a secret or an image, ignores signals, and ends with its parent.
//
// The calls mean what those of OwnMount mean, and like them end in requests to
// the serving process. Safe to call from many threads; one waits for another,
// but for Log().
class MountAttendant {
 public:
  // Forks. To be called before there are threads or secrets, and before any
  // file is open that must not stay open. Throws IoError.
  explicit MountAttendant(const Mountpoint& mountpoint);
  MountAttendant(const MountAttendant&) = delete;
  MountAttendant& operator=(const MountAttendant&) = delete;
  // Waits until it has done what it was asked for, and has ended.
  ~MountAttendant();

  pid_t pid() const { return pid_; }

  void Identify();
  bool SetSize(uint64_t size);
  bool SetTimes(timespec accessed, timespec modified);
  bool WriteBackPages();
  bool Sync();
  bool IsReachable();
  OwnMount::UnmountResult UnmountIfIdle();

  // Takes the mount away, in use or not: what is open there stays open. Throws
  // IoError and Error.
  void Detach();

  // Writes a line to the system log, some time later. Waits for nothing; the
  // line is lost if hundreds are waiting.
  void Log(const std::string& line) noexcept;

 private:
  struct Request;
  struct Reply;

  Reply Ask(const Request& request);
  static Reply Do(const Request& request, OwnMount& mount,
                  const Mountpoint& mountpoint);
  [[noreturn]] static void Run(int fd, const Mountpoint& mountpoint);

  int fd_ = -1;  // A socket; messages of both sides arrive whole.
  pid_t pid_ = -1;
  std::mutex mutex_;  // From a request to its reply.
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_MOUNT_ATTENDANT_H_
