#ifndef PELLUCID_ENGINE_QCOW2_CLUSTER_DATA_H_
#define PELLUCID_ENGINE_QCOW2_CLUSTER_DATA_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <shared_mutex>
#include <span>

#include "crypto/sector_cipher.h"
#include "engine/qcow2/offsets.h"
#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// The plaintext of clusters at their places in the host file: encrypted there
// if the image encrypts by itself (embedded LUKS or legacy AES). Safe to call
// from many threads. Reading takes no lock and allocates nothing; so does
// writing of whole sectors, but for a shared lock.
class ClusterData {
 public:
  static constexpr uint64_t kSectorSize = 512;

  // Fills a span with the plaintext of the guest from an offset on.
  using Plaintext = std::function<void(GuestOffset, std::span<std::byte>)>;

  // Borrows the devices: the file that holds the clusters, and the same again
  // if it may be written. Without a cipher the clusters are stored as they are.
  ClusterData(BlockDevice& file, WritableDevice* writable_file,
              std::unique_ptr<crypto::SectorCipher> cipher,
              bool tweak_is_guest);

  bool is_encrypted() const { return cipher_ != nullptr; }

  // Guest and host offset are equally far into their cluster. What lies behind
  // the end of the file is zeros of ciphertext. Throws IoError.
  void Read(GuestOffset guest, HostOffset host, std::span<std::byte> out);

  // Changes bytes of a cluster that is in use, of any alignment. Throws
  // IoError.
  void Write(GuestOffset guest, HostOffset host, std::span<const std::byte> in);

  // Writes `in` with `head` bytes in front and `tail` bytes behind it, which
  // `rim` gives; all three together are whole sectors, of which nobody else
  // writes any. `guest` and `host` are those of `in`. Throws IoError, and what
  // `rim` throws.
  void WriteWithRim(GuestOffset guest, HostOffset host,
                    std::span<const std::byte> in, uint64_t head, uint64_t tail,
                    const Plaintext& rim);

 private:
  uint64_t FirstSector(GuestOffset guest, HostOffset host) const {
    return (tweak_is_guest_ ? guest.value : host.value) / kSectorSize;
  }

  BlockDevice& file_;
  WritableDevice* const writable_file_;
  const std::unique_ptr<crypto::SectorCipher> cipher_;
  const bool tweak_is_guest_;
  // A sector that a write cuts is read, changed and written: alone, since
  // whatever else is written to it meanwhile would be lost. Whole sectors share
  // the lock. Held across that I/O for this reason.
  std::shared_mutex cut_sectors_;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_CLUSTER_DATA_H_
