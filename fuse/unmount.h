#ifndef PELLUCID_FUSE_UNMOUNT_H_
#define PELLUCID_FUSE_UNMOUNT_H_

#include <filesystem>

namespace pellucid::fuse {

enum class UnmountMode {
  kWhenIdle,  // Refused while a file is open.
  kLazy,      // Open files stay usable; the server ends with the last of them.
};

// Ends the mount of pellucid at `mountpoint`. Unless lazy, it first makes
// durable what was written, and returns when the serving process has ended, so
// that the image is free again. If that fails, or takes minutes, it throws
// IoError with the remedy, and all stays mounted. What somebody writes after
// that and before the unmount becomes durable before the process ends; if it
// does not, IoError says that it is lost. Never waits for a server that
// does not answer: unmounts, and throws Error since it cannot tell whether that
// has ended. Throws UsageError if nothing of ours is mounted there, Error with
// a remedy if it is in use, IoError. Not for a process with other threads.
void Unmount(const std::filesystem::path& mountpoint, UnmountMode mode);

// Unmounts whatever is at `mountpoint`, an absolute path; false if it is in
// use. Waits for nobody. Throws Error and IoError.
bool UnmountUnlessBusy(const std::filesystem::path& mountpoint);

// The same, but in use or not: what is open there stays open.
void DetachMount(const std::filesystem::path& mountpoint);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_UNMOUNT_H_
