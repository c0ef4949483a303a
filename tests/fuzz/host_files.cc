#include "tests/fuzz/host_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/sparse_device.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSector = 512;
constexpr size_t kRecord = sizeof(uint32_t) + kSector;
// Writing moves the second, and reading the first, being the older one.
constexpr timespec kTimes[2] = {{.tv_sec = 1, .tv_nsec = 0},
                                {.tv_sec = 2, .tv_nsec = 0}};

struct stat Stat(const fs::path& path) {
  struct stat status = {};
  Require(stat(path.c_str(), &status) == 0, "a file that has gone");
  return status;
}

}  // namespace

HostFiles::HostFiles() {
  // In memory, where a flush costs nothing.
  const fs::path memory = "/dev/shm";
  std::string name =
      (fs::is_directory(memory) ? memory : fs::temp_directory_path()) /
      "pellucid-fuzz-XXXXXX";
  Require(mkdtemp(name.data()) != nullptr, "no folder for files");
  folder_ = name;
}

HostFiles::~HostFiles() { fs::remove_all(folder_); }

fs::path HostFiles::Path(size_t file) const {
  return folder_ / std::to_string(file);
}

void HostFiles::Put(std::span<const uint8_t> input) {
  std::array<int, kCount> files;
  std::array<uint64_t, kCount> sizes = {};
  for (size_t i = 0; i < kCount; ++i) {
    files[i] = open(Path(i).c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC,
                    S_IRUSR | S_IWUSR);
    Require(files[i] >= 0, "a file cannot be made");
  }
  sizes[0] = SparseDevice(input).size();
  if (!input.empty()) input = input.subspan(std::min<size_t>(8, input.size()));
  while (input.size() > sizeof(uint32_t)) {
    uint32_t number = 0;
    std::memcpy(&number, input.data(), sizeof number);
    const size_t file = number >> 30;
    const uint64_t at = uint64_t{number & ((1U << 30) - 1)} * kSector;
    const size_t length = std::min(input.size(), kRecord) - sizeof number;
    if (file != 0) sizes[file] = std::max(sizes[file], at + kSector);
    Require(pwrite(files[file], input.data() + sizeof number, length,
                   static_cast<off_t>(at)) == static_cast<ssize_t>(length),
            "a file cannot be written");
    input = input.subspan(sizeof number + length);
  }
  for (size_t i = 0; i < kCount; ++i) {
    Require(ftruncate(files[i], static_cast<off_t>(sizes[i])) == 0,
            "a file cannot be made that long");
    futimens(files[i], kTimes);
    close(files[i]);
  }
}

OpenOptions HostFiles::Options() const {
  OpenOptions options;
  options.image = Path(0);
  options.allowed_paths = {folder_};
  return options;
}

void HostFiles::RequireNoOthers(const OpenedImage& opened) const {
  for (const HostFileId& id : opened.files) {
    bool is_ours = false;
    for (size_t i = 0; i < kCount; ++i) {
      is_ours = is_ours || HostFileId::Of(Stat(Path(i))) == id;
    }
    Require(is_ours, "a file was opened that is not allowed");
  }
}

void HostFiles::RequireUntouched(const std::vector<fs::path>& written) const {
  for (size_t i = 0; i < kCount; ++i) {
    const fs::path path = Path(i);
    if (std::ranges::any_of(written, [&](const fs::path& other) {
          return fs::equivalent(path, other);
        })) {
      continue;
    }
    const struct stat status = Stat(path);
    Require(status.st_atim.tv_sec == kTimes[0].tv_sec,
            "a read that the access time tells");
    Require(status.st_mtim.tv_sec == kTimes[1].tv_sec,
            "a write to a file that is not to be written");
  }
}

}  // namespace pellucid
