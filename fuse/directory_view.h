#ifndef PELLUCID_FUSE_DIRECTORY_VIEW_H_
#define PELLUCID_FUSE_DIRECTORY_VIEW_H_

#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include <ctime>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/block_device.h"
#include "engine/partition_table.h"
#include "engine/snapshot_disks.h"
#include "fuse/error_log.h"

namespace pellucid::fuse {

// What a root directory shows beside the file `disk`, all of it read-only:
//
//   partitions/N                  a partition of the disk
//   partitions/by-label/LABEL     -> ../N
//   snapshots/NAME/disk           the disk in an internal snapshot
//   snapshots/NAME/partitions/    as above
//
// A folder that would have nothing in it is not there; an unusable partition
// table has an empty one, and the log says why. Nothing is read before somebody
// looks, and what has been found stays. Inode numbers are computed, so that an
// image of many snapshots costs their names only.
//
// Safe to call from many threads. Two that ask for the same state, active or
// snapshot, for the first time wait for each other.
class DirectoryView {
 public:
  static constexpr fuse_ino_t kRootInode = FUSE_ROOT_ID;
  static constexpr fuse_ino_t kDiskInode = 2;

  struct Child {
    std::string name;
    fuse_ino_t inode;
    mode_t type;  // S_IFDIR, S_IFREG or S_IFLNK.
  };

  // A file to read from.
  struct File {
    BlockDevice& device;
    fuse_ino_t inode;
  };

  // Borrows its arguments; `snapshots` is null without any, and `times` is of
  // the image. The partitions of `disk` are left out unless `has_partitions`.
  DirectoryView(BlockDevice& disk, bool has_partitions,
                SnapshotDisks* snapshots, timespec time, ErrorLog& log);
  ~DirectoryView();

  // At most `max` children of a directory, from number `first` on; `disk` is
  // among those of the root.
  std::vector<Child> Children(fuse_ino_t directory, size_t first, size_t max);

  // The child of that name, if there is one. Throws what opening a snapshot and
  // reading a partition table throw.
  std::optional<Child> Find(fuse_ino_t directory, std::string_view name);

  // S_IFDIR, S_IFREG or S_IFLNK, by the number alone.
  static mode_t TypeOf(fuse_ino_t inode);
  // The directory that holds a directory; the root's is itself.
  static fuse_ino_t ParentOf(fuse_ino_t directory);
  // When it was last changed: when the snapshot was taken, for those of one.
  timespec TimeOf(fuse_ino_t inode) const;
  // Of a symbolic link that was found.
  std::string LinkTarget(fuse_ino_t inode) const;
  // A regular file that was found, but for kDiskInode; it stays as long as
  // this. Throws as Find() does.
  const File& OpenFile(fuse_ino_t inode);

 private:
  // The disk in one state, and what is known of it so far.
  struct State {
    std::mutex mutex;  // Held while the state is opened: nobody does it twice.
    std::unique_ptr<BlockDevice> opened;  // Of a snapshot.
    std::unique_ptr<File> disk;
    bool has_table = false;  // `table` is known, if only to be empty.
    std::optional<PartitionTable> table;
    std::vector<std::string> labels;  // Safe, of those that have one.
    std::vector<unsigned> labelled;   // Their numbers.
    std::map<unsigned, std::unique_ptr<BlockDevice>> windows;
    std::map<unsigned, File> partitions;
  };

  State& StateOf(fuse_ino_t inode);
  // Both require the state's mutex.
  const File& OpenDisk(uint64_t number, State& state);
  void ReadTable(uint64_t number, State& state);
  bool HasTable(uint64_t number, State& state);
  std::string DescribeState(uint64_t number) const;

  std::vector<Child> ListState(uint64_t number);
  std::optional<Child> FindPartition(fuse_ino_t directory,
                                     std::string_view name);
  std::optional<Child> FindLabel(fuse_ino_t directory, std::string_view name);

  BlockDevice& disk_;
  const bool has_partitions_;
  SnapshotDisks* const snapshots_;
  const timespec time_;
  ErrorLog& log_;
  std::vector<std::string> names_;                        // Of the snapshots.
  std::unordered_map<std::string_view, size_t> indexes_;  // In names_.

  std::mutex states_mutex_;
  // By number: 0 for the active one, then the snapshots. Guarded by
  // states_mutex_, which nobody holds for longer than a look.
  std::unordered_map<uint64_t, std::unique_ptr<State>> states_;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_DIRECTORY_VIEW_H_
