#ifndef PELLUCID_FUSE_MOUNTED_DEVICE_H_
#define PELLUCID_FUSE_MOUNTED_DEVICE_H_

#include <concepts>
#include <functional>
#include <memory>
#include <utility>

#include "engine/snapshot_disks.h"
#include "engine/writable_device.h"

namespace pellucid::fuse {

// What a mount shows, and how it is written.
struct MountedDevice {
  // One that is only read. Not explicit: a device alone stands for that.
  template <std::derived_from<BlockDevice> Device>
  MountedDevice(std::unique_ptr<Device> shown) : device(std::move(shown)) {}
  MountedDevice(std::unique_ptr<BlockDevice> shown, WritableDevice* writing)
      : device(std::move(shown)), writable(writing) {}

  std::unique_ptr<BlockDevice> device;
  // What borrows `device` and is shown beside it in a directory; may be null.
  std::unique_ptr<SnapshotDisks> snapshots;
  // The same object as `device`; null if it cannot be written.
  WritableDevice* writable = nullptr;
  // Called whenever a file that was open for writing is closed, from many
  // threads: throws the error of a write that was put off, failed since, and
  // was not reported yet; reports it once. It need not make anything durable
  // and should cost nothing otherwise. Empty: no write is put off.
  std::function<void()> report_deferred_error;
  // Called once before the first request, when the process has given up its
  // rights, so that threads that it starts have none either. May be empty.
  std::function<void()> start;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_MOUNTED_DEVICE_H_
