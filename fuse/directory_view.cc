#include "fuse/directory_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <exception>
#include <utility>

#include "engine/device_window.h"
#include "fuse/mountpoint.h"
#include "fuse/view_names.h"

namespace pellucid::fuse {
namespace {

constexpr char kPartitionsName[] = "partitions";
constexpr char kByLabelName[] = "by-label";
constexpr char kSnapshotsName[] = "snapshots";

// An inode number is that of the state, and one within the state.
constexpr unsigned kStateBits = 16;
constexpr fuse_ino_t kWithinState = (fuse_ino_t{1} << kStateBits) - 1;
// The state's folder; that of the active one is the root.
constexpr fuse_ino_t kFolder = FUSE_ROOT_ID;
constexpr fuse_ino_t kDisk = DirectoryView::kDiskInode;
constexpr fuse_ino_t kPartitions = 3;
constexpr fuse_ino_t kByLabel = 4;
constexpr fuse_ino_t kSnapshots = 5;  // Of the active state only.
// Plus the number of a partition, of which there are not as many.
constexpr fuse_ino_t kPartition = 0x4000;
constexpr fuse_ino_t kLabel = 0x8000;

fuse_ino_t InodeOf(uint64_t state, fuse_ino_t within) {
  return state << kStateBits | within;
}
uint64_t StateNumberOf(fuse_ino_t inode) { return inode >> kStateBits; }
fuse_ino_t WithinState(fuse_ino_t inode) { return inode & kWithinState; }

DirectoryView::Child MakeChild(std::string name, uint64_t state,
                               fuse_ino_t within) {
  return {.name = std::move(name),
          .inode = InodeOf(state, within),
          .type = DirectoryView::TypeOf(within)};
}

}  // namespace

DirectoryView::DirectoryView(BlockDevice& disk, bool has_partitions,
                             SnapshotDisks* snapshots, timespec time,
                             ErrorLog& log)
    : disk_(disk),
      has_partitions_(has_partitions),
      snapshots_(snapshots),
      time_(time),
      log_(log) {
  if (snapshots_ == nullptr) return;
  std::vector<std::string> names;
  for (size_t i = 0; i < snapshots_->count(); ++i) {
    names.push_back(snapshots_->info(i).name);
  }
  names_ = SafeNames(names);
  for (size_t i = 0; i < names_.size(); ++i) indexes_[names_[i]] = i;
}

DirectoryView::~DirectoryView() = default;

mode_t DirectoryView::TypeOf(fuse_ino_t inode) {
  const fuse_ino_t within = WithinState(inode);
  if (within >= kLabel) return S_IFLNK;
  return within == kDisk || within >= kPartition ? S_IFREG : S_IFDIR;
}

fuse_ino_t DirectoryView::ParentOf(fuse_ino_t directory) {
  const uint64_t number = StateNumberOf(directory);
  switch (WithinState(directory)) {
    case kFolder:
      return number == 0 ? kRootInode : kSnapshots;
    case kByLabel:
      return InodeOf(number, kPartitions);
    default:
      return InodeOf(number, kFolder);
  }
}

timespec DirectoryView::TimeOf(fuse_ino_t inode) const {
  const uint64_t number = StateNumberOf(inode);
  if (number == 0) return time_;
  const SnapshotInfo& snapshot = snapshots_->info(number - 1);
  timespec time = {};
  time.tv_sec = snapshot.date_seconds;
  time.tv_nsec = std::min<long>(snapshot.date_nanoseconds, 999'999'999);
  return time;
}

std::string DirectoryView::LinkTarget(fuse_ino_t inode) const {
  return fmt::format("../{}", WithinState(inode) - kLabel);
}

DirectoryView::State& DirectoryView::StateOf(fuse_ino_t inode) {
  const std::scoped_lock lock(states_mutex_);
  std::unique_ptr<State>& state = states_[StateNumberOf(inode)];
  if (!state) state = std::make_unique<State>();
  return *state;
}

std::string DirectoryView::DescribeState(uint64_t number) const {
  return number == 0 ? kDiskName
                     : fmt::format("{}/{}/{}", kSnapshotsName,
                                   names_[number - 1], kDiskName);
}

const DirectoryView::File& DirectoryView::OpenDisk(uint64_t number,
                                                   State& state) {
  if (!state.disk) {
    if (number != 0) state.opened = snapshots_->Open(number - 1);
    state.disk = std::make_unique<File>(
        File{.device = number == 0 ? disk_ : *state.opened,
             .inode = InodeOf(number, kDisk)});
  }
  return *state.disk;
}

void DirectoryView::ReadTable(uint64_t number, State& state) {
  if (state.has_table) return;
  if (number == 0 && !has_partitions_) return;
  BlockDevice& disk = OpenDisk(number, state).device;
  state.table = ReadPartitionTable(disk);
  if (state.table) {
    for (const std::string& warning : state.table->warnings) {
      log_.Report("partition table of " + DescribeState(number), warning);
    }
    std::vector<std::string> labels;
    for (const Partition& partition : state.table->partitions) {
      state.windows[partition.number] = std::make_unique<WindowReader>(
          disk, partition.offset, partition.size);
      state.partitions.emplace(
          partition.number,
          File{.device = *state.windows[partition.number],
               .inode = InodeOf(number, kPartition + partition.number)});
      if (partition.label.empty()) continue;
      labels.push_back(partition.label);
      state.labelled.push_back(partition.number);
    }
    state.labels = SafeNames(labels);
  }
  state.has_table = true;
}

bool DirectoryView::HasTable(uint64_t number, State& state) {
  try {
    ReadTable(number, state);
  } catch (const std::exception& error) {
    // A listing goes on; whoever asks for the folder itself is told.
    log_.Report("reading the partition table of " + DescribeState(number),
                error.what());
  }
  return state.table.has_value();
}

std::vector<DirectoryView::Child> DirectoryView::ListState(uint64_t number) {
  State& state = StateOf(InodeOf(number, kFolder));
  std::vector<Child> children = {MakeChild(kDiskName, number, kDisk)};
  {
    const std::scoped_lock lock(state.mutex);
    if (HasTable(number, state)) {
      children.push_back(MakeChild(kPartitionsName, number, kPartitions));
    }
  }
  if (number == 0 && !names_.empty()) {
    children.push_back(MakeChild(kSnapshotsName, 0, kSnapshots));
  }
  return children;
}

std::vector<DirectoryView::Child> DirectoryView::Children(fuse_ino_t directory,
                                                          size_t first,
                                                          size_t max) {
  const uint64_t number = StateNumberOf(directory);
  std::vector<Child> children;
  if (WithinState(directory) == kSnapshots) {
    const size_t end = std::min(names_.size(), first + max);
    for (size_t i = first; i < end; ++i) {
      children.push_back(MakeChild(names_[i], i + 1, kFolder));
    }
    return children;
  }
  if (WithinState(directory) == kFolder) {
    children = ListState(number);
  } else {
    State& state = StateOf(directory);
    const std::scoped_lock lock(state.mutex);
    if (WithinState(directory) == kPartitions) {
      for (const auto& [partition, file] : state.partitions) {
        children.push_back(MakeChild(std::to_string(partition), number,
                                     kPartition + partition));
      }
      if (!state.labels.empty()) {
        children.push_back(MakeChild(kByLabelName, number, kByLabel));
      }
    } else {
      for (size_t i = 0; i < state.labels.size(); ++i) {
        children.push_back(
            MakeChild(state.labels[i], number, kLabel + state.labelled[i]));
      }
    }
  }
  first = std::min(first, children.size());
  children.erase(children.begin(),
                 children.begin() + static_cast<ptrdiff_t>(first));
  if (children.size() > max) {
    children.erase(children.begin() + static_cast<ptrdiff_t>(max),
                   children.end());
  }
  return children;
}

std::optional<DirectoryView::Child> DirectoryView::Find(fuse_ino_t directory,
                                                        std::string_view name) {
  const uint64_t number = StateNumberOf(directory);
  switch (WithinState(directory)) {
    case kFolder:
      if (name == kDiskName) return MakeChild(kDiskName, number, kDisk);
      if (name == kPartitionsName) {
        State& state = StateOf(directory);
        const std::scoped_lock lock(state.mutex);
        ReadTable(number, state);
        if (!state.table) return std::nullopt;
        return MakeChild(kPartitionsName, number, kPartitions);
      }
      if (name == kSnapshotsName && number == 0 && !names_.empty()) {
        return MakeChild(kSnapshotsName, 0, kSnapshots);
      }
      return std::nullopt;
    case kPartitions:
      return FindPartition(directory, name);
    case kByLabel:
      return FindLabel(directory, name);
    case kSnapshots: {
      const auto found = indexes_.find(name);
      if (found == indexes_.end()) return std::nullopt;
      return MakeChild(names_[found->second], found->second + 1, kFolder);
    }
    default:
      return std::nullopt;
  }
}

std::optional<DirectoryView::Child> DirectoryView::FindPartition(
    fuse_ino_t directory, std::string_view name) {
  const uint64_t number = StateNumberOf(directory);
  State& state = StateOf(directory);
  const std::scoped_lock lock(state.mutex);
  if (name == kByLabelName && !state.labels.empty()) {
    return MakeChild(kByLabelName, number, kByLabel);
  }
  unsigned partition = 0;
  std::from_chars(name.data(), name.data() + name.size(), partition);
  // One spelling: no "01".
  if (!state.partitions.contains(partition) ||
      name != std::to_string(partition)) {
    return std::nullopt;
  }
  return MakeChild(std::string(name), number, kPartition + partition);
}

std::optional<DirectoryView::Child> DirectoryView::FindLabel(
    fuse_ino_t directory, std::string_view name) {
  State& state = StateOf(directory);
  const std::scoped_lock lock(state.mutex);
  const auto found = std::ranges::find(state.labels, name);
  if (found == state.labels.end()) return std::nullopt;
  return MakeChild(
      *found, StateNumberOf(directory),
      kLabel +
          state.labelled[static_cast<size_t>(found - state.labels.begin())]);
}

const DirectoryView::File& DirectoryView::OpenFile(fuse_ino_t inode) {
  const uint64_t number = StateNumberOf(inode);
  State& state = StateOf(inode);
  const std::scoped_lock lock(state.mutex);
  if (WithinState(inode) == kDisk) return OpenDisk(number, state);
  ReadTable(number, state);
  return state.partitions.at(
      static_cast<unsigned>(WithinState(inode) - kPartition));
}

}  // namespace pellucid::fuse
