#include "engine/qcow2/cluster_data.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <utility>

#include "engine/sector_pieces.h"

namespace pellucid::qcow2 {
namespace {

// What is encrypted and written at a time: little enough to stay in the
// processor's cache between the two.
constexpr size_t kPieceBytes = 256 << 10;

// Ciphertext on its way to the file; mapped once for each thread that writes.
std::span<std::byte> PieceOfThisThread() {
  struct alignas(4096) Piece {
    std::array<std::byte, kPieceBytes> bytes;
  };
  thread_local const std::unique_ptr<Piece> piece(new Piece);
  return piece->bytes;
}

}  // namespace

ClusterData::ClusterData(BlockDevice& file, WritableDevice* writable_file,
                         std::unique_ptr<crypto::SectorCipher> cipher,
                         bool tweak_is_guest)
    : file_(file),
      writable_file_(writable_file),
      cipher_(std::move(cipher)),
      tweak_is_guest_(tweak_is_guest) {}

void ClusterData::Read(GuestOffset guest, HostOffset host,
                       std::span<std::byte> out) {
  if (!cipher_) return ReadZeroPadded(file_, host.value, out);
  // Both begin and end sectors at the same bytes.
  ReadInSectors(host.value, out, kSectorSize,
                [&](uint64_t at, std::span<std::byte> sectors) {
                  // A cluster may end behind the file: zeros of ciphertext.
                  ReadZeroPadded(file_, at, sectors);
                  const GuestOffset guest_at = {guest.value - host.value + at};
                  cipher_->Decrypt(FirstSector(guest_at, {at}), sectors,
                                   sectors);
                });
}

void ClusterData::Write(GuestOffset guest, HostOffset host,
                        std::span<const std::byte> in) {
  if (!cipher_) return writable_file_->Write(host.value, in);
  const uint64_t head = host.value % kSectorSize;
  const uint64_t end = (host.value + in.size()) % kSectorSize;
  if (head == 0 && end == 0) {
    const std::shared_lock lock(cut_sectors_);
    return WriteWithRim(guest, host, in, 0, 0, {});
  }
  const std::lock_guard lock(cut_sectors_);
  WriteWithRim(guest, host, in, head, end == 0 ? 0 : kSectorSize - end,
               [&](GuestOffset at, std::span<std::byte> out) {
                 Read(at, {host.value - guest.value + at.value}, out);
               });
}

void ClusterData::WriteWithRim(GuestOffset guest, HostOffset host,
                               std::span<const std::byte> in, uint64_t head,
                               uint64_t tail, const Plaintext& rim) {
  const GuestOffset guest_begin = {guest.value - head};
  const HostOffset host_begin = {host.value - head};
  const uint64_t length = head + in.size() + tail;
  const uint64_t in_end = head + in.size();
  const std::span<std::byte> buffer = PieceOfThisThread();
  for (uint64_t at = 0; at < length;) {
    const size_t size = std::min<uint64_t>(length - at, buffer.size());
    const uint64_t end = at + size;
    const std::span<std::byte> piece = buffer.first(size);
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
    writable_file_->Write(host_begin.value + at, plain);
    at = end;
  }
}

}  // namespace pellucid::qcow2
