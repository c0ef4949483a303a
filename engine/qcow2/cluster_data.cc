#include "engine/qcow2/cluster_data.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <mutex>
#include <utility>

#include "engine/sector_pieces.h"
#include "engine/transfer_buffer.h"

namespace pellucid::qcow2 {
namespace {

constexpr uint64_t kRegionBytes = TransferBuffer::kSize;

// Calls use(offset, span) for the parts of `bytes`, which begin at `offset`,
// that lie in one region each.
template <typename Byte, typename Use>
void ForEachRegion(uint64_t offset, std::span<Byte> bytes, Use use) {
  while (!bytes.empty()) {
    const size_t length =
        std::min<uint64_t>(bytes.size(), kRegionBytes - offset % kRegionBytes);
    use(offset, bytes.first(length));
    offset += length;
    bytes = bytes.subspan(length);
  }
}

}  // namespace

ClusterData::ClusterData(BlockDevice& file, WritableDevice* writable_file,
                         std::unique_ptr<crypto::SectorCipher> cipher,
                         bool tweak_is_guest)
    : file_(file),
      writable_file_(writable_file),
      cipher_(std::move(cipher)),
      tweak_is_guest_(tweak_is_guest) {}

std::shared_mutex& ClusterData::RegionMutex(HostOffset host) {
  return region_locks_[host.value / kRegionBytes % kRegionLocks].mutex;
}

void ClusterData::Read(GuestOffset guest, HostOffset host,
                       std::span<std::byte> out) {
  if (!cipher_) return ReadZeroPadded(file_, host.value, out);
  if (writable_file_ == nullptr) return ReadInRegion(guest, host, out);
  ForEachRegion(host.value, out, [&](uint64_t at, std::span<std::byte> part) {
    ReadInRegion({guest.value - host.value + at}, {at}, part);
  });
}

void ClusterData::ReadInRegion(GuestOffset guest, HostOffset host,
                               std::span<std::byte> out) {
  // Guest and host begin and end sectors at the same bytes.
  ReadInSectors(host.value, out, kSectorSize,
                [&](uint64_t at, std::span<std::byte> sectors) {
                  {
                    std::shared_lock<std::shared_mutex> lock;
                    if (writable_file_ != nullptr) {
                      lock = std::shared_lock(RegionMutex({at}));
                    }
                    // A cluster may end behind the file: zeros of ciphertext.
                    ReadZeroPadded(file_, at, sectors);
                  }
                  const GuestOffset guest_at = {guest.value - host.value + at};
                  cipher_->Decrypt(FirstSector(guest_at, {at}), sectors,
                                   sectors);
                });
}

void ClusterData::Write(GuestOffset guest, HostOffset host,
                        std::span<const std::byte> in) {
  if (!cipher_) return writable_file_->Write(host.value, in);
  ForEachRegion(host.value, in,
                [&](uint64_t at, std::span<const std::byte> part) {
                  WriteInRegion({guest.value - host.value + at}, {at}, part);
                });
}

void ClusterData::WriteInRegion(GuestOffset guest, HostOffset host,
                                std::span<const std::byte> in) {
  std::shared_mutex& mutex = RegionMutex(host);
  const uint64_t head = host.value % kSectorSize;
  const uint64_t end = (host.value + in.size()) % kSectorSize;
  if (head == 0 && end == 0) {
    return WritePieces(guest, host, in, 0, 0, {}, /*takes_locks=*/true);
  }
  // A cut sector has to stay as it was read until it is written.
  const std::lock_guard lock(mutex);
  const auto read_stored = [&](GuestOffset at, std::span<std::byte> out) {
    const HostOffset from = {host.value - guest.value + at.value};
    ReadInSectors(
        from.value, out, kSectorSize,
        [&](uint64_t sector, std::span<std::byte> sectors) {
          ReadZeroPadded(file_, sector, sectors);
          cipher_->Decrypt(
              FirstSector({guest.value - host.value + sector}, {sector}),
              sectors, sectors);
        });
  };
  WritePieces(guest, host, in, head, end == 0 ? 0 : kSectorSize - end,
              std::ref(read_stored), /*takes_locks=*/false);
}

void ClusterData::WriteWithRim(GuestOffset guest, HostOffset host,
                               std::span<const std::byte> in, uint64_t head,
                               uint64_t tail, const Plaintext& rim,
                               Access access) {
  WritePieces(guest, host, in, head, tail, rim, access == Access::kShared);
}

void ClusterData::WritePieces(GuestOffset guest, HostOffset host,
                              std::span<const std::byte> in, uint64_t head,
                              uint64_t tail, const Plaintext& rim,
                              bool takes_locks) {
  const GuestOffset guest_begin = {guest.value - head};
  const HostOffset host_begin = {host.value - head};
  const uint64_t length = head + in.size() + tail;
  const uint64_t in_end = head + in.size();
  TransferBuffer buffer;
  for (uint64_t at = 0; at < length;) {
    // Up to the end of a region, which has a lock of its own.
    uint64_t most = TransferBuffer::kSize;
    if (takes_locks) most -= (host_begin.value + at) % kRegionBytes;
    const size_t size = std::min(length - at, most);
    const uint64_t end = at + size;
    const std::span<std::byte> piece = buffer.bytes().first(size);
    std::span<const std::byte> plain = piece;
    if (at >= head && end <= in_end) {
      plain = in.subspan(at - head, size);
    } else {
      // Bytes [at, end) of the three parts, each at its place.
      const uint64_t in_from = std::clamp(head, at, end);
      const uint64_t in_to = std::clamp(in_end, at, end);
      if (at < in_from) rim(guest_begin + at, piece.first(in_from - at));
      if (in_from < in_to) {
        std::memcpy(piece.data() + (in_from - at), in.data() + (in_from - head),
                    in_to - in_from);
      }
      if (in_to < end) rim(guest_begin + in_to, piece.subspan(in_to - at));
    }
    if (cipher_) {
      cipher_->Encrypt(FirstSector(guest_begin + at, host_begin + at), plain,
                       piece);
      plain = piece;
    }
    std::unique_lock<std::shared_mutex> held;
    if (takes_locks && cipher_) {
      held = std::unique_lock(RegionMutex(host_begin + at));
    }
    writable_file_->Write(host_begin.value + at, plain);
    at = end;
  }
}

}  // namespace pellucid::qcow2
