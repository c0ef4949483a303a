#ifndef PELLUCID_ENGINE_QCOW2_OFFSETS_H_
#define PELLUCID_ENGINE_QCOW2_OFFSETS_H_

#include <compare>
#include <cstdint>

namespace pellucid::qcow2 {

// A byte of the virtual disk. Legacy AES tweaks with it.
struct GuestOffset {
  uint64_t value = 0;
  auto operator<=>(const GuestOffset&) const = default;
};

// A byte of the file that holds the clusters: the image, or its external data
// file. Embedded LUKS tweaks with it.
struct HostOffset {
  uint64_t value = 0;
  auto operator<=>(const HostOffset&) const = default;
};

constexpr GuestOffset operator+(GuestOffset at, uint64_t bytes) {
  return {at.value + bytes};
}
constexpr HostOffset operator+(HostOffset at, uint64_t bytes) {
  return {at.value + bytes};
}

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_OFFSETS_H_
