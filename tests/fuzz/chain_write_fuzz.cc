// A write session over an image with a backing chain and an external data file,
// each of them a file. Backing files must stay as they are, and an image in
// which nothing was wrong must hold what was written when it is opened again.

#include <optional>
#include <random>
#include <utility>

#include "engine/check_image.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/fuzzed_image.h"
#include "tests/fuzz/host_files.h"
#include "tests/fuzz/sparse_device.h"
#include "tests/fuzz/write_session.h"

using namespace pellucid;

namespace {

bool IsSound(const OpenOptions& options) {
  bool sound = false;
  Attempt([&] {
    const CheckReport report = CheckImage(options, Repair::kNone);
    sound = report.findings.count(Severity::kCorruption) == 0 &&
            report.findings.count(Severity::kLeak) == 0;
  });
  return sound;
}

// The files that may change.
std::vector<std::filesystem::path> WrittenFiles(const OpenOptions& options) {
  std::vector<std::filesystem::path> written = {options.image};
  Attempt([&] {
    const ImageInfo info = DescribeImage(options);
    if (info.qcow2 && !info.qcow2->data_file_path.empty()) {
      written.push_back(info.qcow2->data_file_path);
    }
  });
  return written;
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static HostFiles files;
  files.Put({data, size});
  std::mt19937_64 random(SparseDevice::ForTarget({data, size}));
  OpenOptions options = files.Options();
  options.encryption = Encryption::kNone;
  const auto written = WrittenFiles(options);
  const bool was_sound = IsSound(options);
  files.RequireUntouched();
  options.writable = true;
  NoPassphrases none;
  std::optional<OpenedImage> opened;
  if (Attempt([&] { opened = OpenImage(options, none); })) {
    files.RequireNoOthers(*opened);
    DiskModel model(*opened->device);
    const bool all_done = ChangeDisk(*opened->writable, model, random);
    const bool flushed = Attempt([&] { opened->writable->Flush(); });
    opened.reset();
    options.writable = false;
    if (was_sound && all_done && flushed) {
      Require(IsSound(options), "writing has damaged the image");
      model.Compare(*OpenImage(options, none).device);
    }
  }
  files.RequireUntouched(written);
  return 0;
}
