#include "engine/qcow2/qcow2_image.h"

#include <fmt/format.h>

#include <utility>

#include "engine/errors.h"

namespace pellucid::qcow2 {
namespace {

std::unique_ptr<BlockDevice> EitherOf(
    std::unique_ptr<BlockDevice> readable,
    std::unique_ptr<ResizableDevice> writable) {
  if (writable) return writable;
  return readable;
}

// The disk of a snapshot. Takes no section of MappingUsers: what a snapshot has
// is neither changed nor freed while the image is open.
class SnapshotDevice : public BlockDevice {
 public:
  SnapshotDevice(std::unique_ptr<ClusterMap> map, ClusterData& data,
                 CompressedClusters& compressed, BlockDevice* backing,
                 uint64_t size, uint64_t cluster_size)
      : map_(std::move(map)),
        reader_(*map_, data, compressed, backing, size, cluster_size) {}

  uint64_t size() const override { return reader_.size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    reader_.Read(offset, out);
  }
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    return reader_.ExtentAt(offset, max_length);
  }

 private:
  const std::unique_ptr<ClusterMap> map_;
  StateReader reader_;
};

L1Table LoadL1(const Qcow2Image::Parts& parts) {
  return ReadL1TableOf(parts.writable_file ? *parts.writable_file : *parts.file,
                       parts.file_name, parts.header,
                       parts.snapshot ? &*parts.snapshot : nullptr);
}

}  // namespace

Qcow2Image::Qcow2Image(Parts parts)
    : Qcow2Image(std::move(parts), LoadL1(parts)) {}

Qcow2Image::Qcow2Image(Parts&& parts, const L1Table& l1)
    : file_name_(parts.file_name),
      writable_file_(parts.writable_file.get()),
      writable_data_file_(parts.writable_data_file.get()),
      file_(EitherOf(std::move(parts.file), std::move(parts.writable_file))),
      data_file_(EitherOf(std::move(parts.data_file),
                          std::move(parts.writable_data_file))),
      backing_(std::move(parts.backing)),
      size_(parts.snapshot ? parts.snapshot->info.virtual_size
                           : parts.header.size),
      header_(parts.header),
      cluster_size_(header_.cluster_size()),
      map_(*file_, file_name_, parts.header, l1, parts.l2_cache_bytes),
      data_(data_file_ ? *data_file_ : *file_,
            data_file_ ? writable_data_file_ : writable_file_,
            std::move(parts.cipher),
            parts.header.crypt_method == CryptMethod::kAes),
      compressed_(*file_, file_name_, parts.header.compression_type,
                  cluster_size_),
      reader_(map_, data_, compressed_, backing_.get(), size_, cluster_size_) {
  if (writable_file_ != nullptr) MakeWriter(parts, l1);
}

Qcow2Image::~Qcow2Image() = default;

void Qcow2Image::MakeWriter(Parts& parts, const L1Table& l1) {
  if (parts.header.has(kDirty) && !parts.repair) {
    parts.repair = std::make_unique<RefcountRepair>(
        *writable_file_, file_name_, parts.header, parts.snapshots);
  }
  users_.emplace();
  writer_ = std::make_unique<ClusterWriter>(ClusterWriter::Parts{
      .file_name = file_name_,
      .file = *writable_file_,
      .data_file = writable_data_file_,
      .header = parts.header,
      .l1_entries = l1.entries,
      .snapshots = parts.snapshots,
      .backing = backing_.get(),
      .map = map_,
      .data = data_,
      .compressed = compressed_,
      .users = *users_,
      .view =
          [this](GuestOffset guest, std::span<std::byte> out) {
            ReadZeroPadded(*this, guest.value, out);
          },
      .repair = std::move(parts.repair),
      .wipes_freed = parts.wipes_freed});
}

void Qcow2Image::Write(uint64_t offset, std::span<const std::byte> in) {
  writer_->Write(offset, in);
}

void Qcow2Image::WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) {
  writer_->WriteZeroes(offset, length, mode);
}

void Qcow2Image::Flush() { writer_->Flush(); }

void Qcow2Image::Read(uint64_t offset, std::span<std::byte> out) {
  std::optional<MappingUsers::Section> section;
  if (users_) section.emplace(*users_);
  reader_.Read(offset, out);
}

Extent Qcow2Image::ExtentAt(uint64_t offset, uint64_t max_length) {
  std::optional<MappingUsers::Section> section;
  if (users_) section.emplace(*users_);
  return reader_.ExtentAt(offset, max_length);
}

std::unique_ptr<BlockDevice> Qcow2Image::OpenSnapshot(
    const Snapshot& snapshot) {
  const L1Place l1 = CheckL1Place(*file_, file_name_, header_, snapshot);
  return std::make_unique<SnapshotDevice>(
      std::make_unique<ClusterMap>(*file_, file_name_, header_, l1,
                                   map_.l2_cache()),
      data_, compressed_, backing_.get(), snapshot.info.virtual_size,
      cluster_size_);
}

}  // namespace pellucid::qcow2
