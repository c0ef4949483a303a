#include "tools/import_source.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/errors.h"
#include "engine/io_error.h"
#include "tools/buffer_pool.h"

namespace pellucid::cli {
namespace {

constexpr char kName[] = "standard input";
constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr size_t kBuffers = 8;
constexpr int kWatchMilliseconds = 100;

// Fills `buffer` from standard input; fewer bytes come only at its end.
size_t FillFromStandardInput(std::span<std::byte> buffer,
                             const std::function<void()>& watch) {
  size_t filled = 0;
  while (filled < buffer.size()) {
    // A read would wait through the signals that end the program.
    pollfd event = {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    const int ready = poll(&event, 1, kWatchMilliseconds);
    watch();
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    const ssize_t n =
        read(STDIN_FILENO, buffer.data() + filled, buffer.size() - filled);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) ThrowIoError(errno, kName);
    if (n == 0) break;
    filled += static_cast<size_t>(n);
  }
  return filled;
}

}  // namespace

void CheckImportSource(const std::string& path,
                       const std::vector<HostFileId>& files) {
  struct stat status;
  const bool is_stream = path == kStandardInput;
  if ((is_stream ? fstat(STDIN_FILENO, &status)
                 : stat(path.c_str(), &status)) != 0) {
    ThrowIoError(errno, is_stream ? kName : path);
  }
  if (std::ranges::find(files, HostFileId::Of(status)) != files.end()) {
    throw UsageError(fmt::format(
        "{}: this is a part of the image itself; import another file",
        is_stream ? kName : path));
  }
}

uint64_t CopyStandardInput(CopyTarget& target, uint64_t offset, uint64_t room,
                           OrderedHashes* hashes,
                           const std::function<void(uint64_t)>& watch) {
  BufferPool buffers(kPieceBytes, kBuffers);
  uint64_t copied = 0;
  for (uint64_t sequence = 0;; ++sequence) {
    const BufferPool::Buffer buffer = buffers.Acquire();
    // Pieces end at multiples of their size in the image, so that its clusters
    // are written whole.
    const size_t want = kPieceBytes - (offset + copied) % kPieceBytes;
    const size_t filled =
        FillFromStandardInput({buffer.get(), want}, [&] { watch(copied); });
    const size_t fits = std::min<uint64_t>(filled, room - copied);
    const std::span<const std::byte> data(buffer.get(), fits);
    if (hashes != nullptr) hashes->Add(sequence, buffer, fits);
    if (!data.empty()) WriteSparsely(target, offset + copied, data);
    copied += fits;
    if (fits < filled) {
      throw UsageError(fmt::format(
          "{}: has more than the {} bytes that fit into the image{}", kName,
          room, offset == 0 ? "" : fmt::format(" from byte {} on", offset)));
    }
    if (filled < want) return copied;
  }
}

}  // namespace pellucid::cli
