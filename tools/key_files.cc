#include "tools/key_files.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/errors.h"
#include "tools/file_descriptor.h"

namespace pellucid::cli {
namespace {

constexpr size_t kFirstBufferSize = 4096;

// Fills `out` until it is full or the file ends; returns the bytes read.
size_t ReadFully(int fd, std::span<std::byte> out, const std::string& name) {
  size_t filled = 0;
  while (filled < out.size()) {
    const ssize_t got = read(fd, out.data() + filled, out.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) ThrowIoError(errno, name);
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  return filled;
}

crypto::SecretBytes ReadToEnd(int fd, const std::string& name) {
  crypto::SecretBytes buffer(kFirstBufferSize);
  size_t filled = 0;
  for (;;) {
    filled += ReadFully(fd, buffer.bytes().subspan(filled), name);
    if (filled < buffer.size()) break;
    if (filled > kMaxKeyFileSize) {
      throw UsageError(
          fmt::format("{}: the key file is larger than 8 MiB", name));
    }
    // One byte above the limit tells a file that is too long.
    crypto::SecretBytes larger(
        std::min(2 * buffer.size(), kMaxKeyFileSize + 1));
    std::ranges::copy(buffer.bytes(), larger.bytes().begin());
    buffer = std::move(larger);
  }
  return crypto::SecretBytes(
      std::span<const std::byte>(buffer.bytes().first(filled)));
}

}  // namespace

crypto::SecretBytes ReadKeyFile(const std::string& path) {
  if (path == "-") return ReadToEnd(STDIN_FILENO, "standard input");
  const FileDescriptor file(
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!file.is_open()) ThrowIoError(errno, path);
  return ReadToEnd(file.get(), path);
}

KeyFiles::KeyFiles(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    files_.push_back({.path = path, .content = std::nullopt});
  }
}

void KeyFiles::OrderForNewLayer() {
  order_.clear();
  for (const bool accepted : {false, true}) {
    for (size_t i = 0; i < files_.size(); ++i) {
      if (files_[i].accepted == accepted) order_.push_back(i);
    }
  }
}

std::optional<crypto::SecretBytes> KeyFiles::Get(std::string_view /*layer*/,
                                                 unsigned attempt) {
  if (attempt == 0) OrderForNewLayer();
  offered_.reset();
  if (attempt >= order_.size()) return std::nullopt;
  offered_ = order_[attempt];
  KeyFile& file = files_[*offered_];
  if (!file.content) file.content = ReadKeyFile(file.path);
  return file.content->Clone();
}

void KeyFiles::Accepted() {
  if (offered_) files_[*offered_].accepted = true;
}

}  // namespace pellucid::cli
