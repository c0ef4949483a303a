#ifndef PELLUCID_ENGINE_QCOW2_CLUSTER_DATA_H_
#define PELLUCID_ENGINE_QCOW2_CLUSTER_DATA_H_

#include <array>
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
// from many threads. Allocates nothing for a request, and takes no lock unless
// encrypted clusters can be written.
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

  // Whether anybody else can be writing to a place, who looked it up before.
  enum class Access { kAlone, kShared };

  // Writes `in` with `head` bytes in front and `tail` bytes behind it, which
  // `rim` gives; all three together are whole sectors. `guest` and `host` are
  // those of `in`. Throws IoError, and what `rim` throws.
  void WriteWithRim(GuestOffset guest, HostOffset host,
                    std::span<const std::byte> in, uint64_t head, uint64_t tail,
                    const Plaintext& rim, Access access);

 private:
  struct alignas(64) RegionLock {
    std::shared_mutex mutex;
  };

  uint64_t FirstSector(GuestOffset guest, HostOffset host) const {
    return (tweak_is_guest_ ? guest.value : host.value) / kSectorSize;
  }
  std::shared_mutex& RegionMutex(HostOffset host);
  // Within one region.
  void ReadInRegion(GuestOffset guest, HostOffset host,
                    std::span<std::byte> out);
  void WriteInRegion(GuestOffset guest, HostOffset host,
                     std::span<const std::byte> in);
  // Takes the locks of what is written, for each write to the file, if
  // `takes_locks` and there is a cipher.
  void WritePieces(GuestOffset guest, HostOffset host,
                   std::span<const std::byte> in, uint64_t head, uint64_t tail,
                   const Plaintext& rim, bool takes_locks);

  BlockDevice& file_;
  WritableDevice* const writable_file_;
  const std::unique_ptr<crypto::SectorCipher> cipher_;
  const bool tweak_is_guest_;
  // The ciphertext of a sector makes sense as a whole only. Whoever changes
  // sectors that are in use has the lock of their region alone, and whoever
  // reads there shares it, so that nobody sees a sector half written. Held
  // across the file's I/O, which is what it is for, and across ciphers only to
  // change a cut sector.
  static constexpr size_t kRegionLocks = 64;
  std::array<RegionLock, kRegionLocks> region_locks_;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_CLUSTER_DATA_H_
