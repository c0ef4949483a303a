#include "tests/fuzz/write_session.h"

#include <algorithm>

#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/fuzzed_image.h"

namespace pellucid {
namespace {

constexpr int kChanges = 12;
constexpr uint64_t kMaxChange = 20'000;

}  // namespace

DiskModel::DiskModel(BlockDevice& disk)
    : content_(std::min(disk.size(), kSeenBytes)) {
  known_ = Attempt([&] { disk.Read(0, content_); });
}

void DiskModel::Put(uint64_t at, std::span<const std::byte> bytes) {
  std::copy(bytes.begin(), bytes.end(),
            content_.begin() + static_cast<ptrdiff_t>(at));
}

void DiskModel::Compare(BlockDevice& disk) const {
  if (!known_) return;
  std::vector<std::byte> found(content_.size());
  disk.Read(0, found);
  Require(found == content_, "the disk does not hold what was written");
}

bool ChangeDisk(WritableDevice& disk, DiskModel& model,
                std::mt19937_64& random) {
  bool all_done = true;
  for (int i = 0; i < kChanges && model.size() > 0; ++i) {
    const uint64_t at = random() % model.size();
    const uint64_t length =
        1 + random() % std::min(model.size() - at, kMaxChange);
    std::vector<std::byte> bytes(length);
    const uint64_t kind = random() % 5;
    const bool done = Attempt([&] {
      if (kind < 2) {
        std::ranges::fill(bytes, static_cast<std::byte>(random()));
        disk.Write(at, bytes);
      } else if (kind < 4) {
        disk.WriteZeroes(
            at, length,
            kind == 2 ? ZeroMode::kFreeSpace : ZeroMode::kKeepSpace);
      } else {
        disk.Flush();
      }
    });
    if (kind < 4) model.Put(at, bytes);
    all_done = all_done && done;
  }
  return all_done;
}

}  // namespace pellucid
