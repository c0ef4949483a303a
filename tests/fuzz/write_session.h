#ifndef PELLUCID_TESTS_FUZZ_WRITE_SESSION_H_
#define PELLUCID_TESTS_FUZZ_WRITE_SESSION_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "engine/writable_device.h"

namespace pellucid {

// The first kSeenBytes of a disk as they have to be, if they could be read.
class DiskModel {
 public:
  explicit DiskModel(BlockDevice& disk);
  uint64_t size() const { return content_.size(); }
  void Put(uint64_t at, std::span<const std::byte> bytes);
  // Ends the fuzzer unless `disk` reads the same. Throws as Read() does.
  void Compare(BlockDevice& disk) const;

 private:
  std::vector<std::byte> content_;
  bool known_ = false;
};

// Writes, zeroes and flushes a few times. False if a change was refused, after
// which the model is not right.
bool ChangeDisk(WritableDevice& disk, DiskModel& model,
                std::mt19937_64& random);

}  // namespace pellucid

#endif  // PELLUCID_TESTS_FUZZ_WRITE_SESSION_H_
