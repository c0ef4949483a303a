#include "engine/found_partitions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

namespace pellucid {

void FoundPartitions::Add(Partition partition, const Place& place) {
  const uint64_t sectors = disk_size_ / place.sector_size;
  const auto describe = [&](const char* fate) {
    return fmt::format("partition {} is {}: sectors {} to {} of {}",
                       partition.number, fate, place.first, place.last,
                       sectors);
  };
  if (place.first > place.last || place.first >= sectors) {
    Warn(describe("left out"));
    return;
  }
  if (place.last >= sectors) Warn(describe("cut"));
  const uint64_t end = std::min(place.last, sectors - 1) + 1;
  partition.offset = place.first * place.sector_size;
  partition.size = (end - place.first) * place.sector_size;
  table_.partitions.push_back(std::move(partition));
}

void FoundPartitions::Warn(std::string warning) {
  constexpr size_t kMaxWarnings = 16;
  if (table_.warnings.size() < kMaxWarnings) {
    table_.warnings.push_back(std::move(warning));
  }
}

}  // namespace pellucid
