#include "tools/preallocation.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "engine/open_image.h"
#include "tools/interrupt_watch.h"
#include "tools/key_files.h"
#include "tools/progress_bar.h"

namespace pellucid::cli {
namespace {

constexpr size_t kStep = size_t{1} << 20;

void StoreZeros(WritableDevice& disk, bool quiet) {
  ProgressBar bar(disk.size(), quiet);
  const std::vector<std::byte> zeros(kStep);
  for (uint64_t done = 0; done < disk.size();) {
    InterruptWatch::Check();
    const auto length =
        static_cast<size_t>(std::min<uint64_t>(kStep, disk.size() - done));
    disk.Write(done, std::span(zeros).first(length));
    done += length;
    bar.Show({.position = done, .copied = done});
  }
  disk.Flush();
}

}  // namespace

void Preallocate(const NewImage& wanted, const crypto::SecretBytes& passphrase,
                 bool quiet) {
  OpenOptions options;
  options.image = wanted.image;
  options.header = wanted.header;
  options.format = wanted.format;
  options.writable = true;
  KeyFiles source(std::vector<OfferedSecret>{
      {.read = [&] { return crypto::SecretBytes(passphrase.bytes()); }}});
  try {
    StoreZeros(*OpenImage(options, source).writable, quiet);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(wanted.image, ignored);
    if (!wanted.header.empty()) std::filesystem::remove(wanted.header, ignored);
    throw;
  }
}

}  // namespace pellucid::cli
