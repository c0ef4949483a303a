#ifndef PELLUCID_ENGINE_AUTOCLEAR_ON_WRITE_H_
#define PELLUCID_ENGINE_AUTOCLEAR_ON_WRITE_H_

#include <cstdint>
#include <mutex>

#include "engine/qcow2/header.h"
#include "engine/writable_device.h"

namespace pellucid {

// A qcow2 file in which something but guest data is to be changed, such as an
// embedded LUKS header. In front of the first write, the autoclear bits that we
// do not know are cleared, and durably so: what they promise may not be true
// behind it. The known ones (bitmaps, raw data file) are about guest data and
// stay. A file that is only read keeps all of them. Safe to call from many
// threads.
class AutoclearOnWrite : public WritableDevice {
 public:
  // Borrows `file`, whose header is `header`.
  AutoclearOnWrite(WritableDevice& file, const qcow2::Header& header)
      : file_(file), autoclear_features_(header.autoclear_features) {}

  uint64_t size() const override { return file_.size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    file_.Read(offset, out);
  }
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    return file_.ExtentAt(offset, max_length);
  }
  void Write(uint64_t offset, std::span<const std::byte> in) override;
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override;
  void Flush() override { file_.Flush(); }

 private:
  void ClearUnknownBits();

  WritableDevice& file_;
  const uint64_t autoclear_features_;
  std::once_flag cleared_;  // Not if that has thrown.
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_AUTOCLEAR_ON_WRITE_H_
