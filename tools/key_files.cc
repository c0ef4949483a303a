#include "tools/key_files.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/errors.h"
#include "engine/host_file_rules.h"
#include "engine/io_error.h"
#include "tools/byte_size.h"
#include "tools/file_descriptor.h"

namespace pellucid::cli {
namespace {

constexpr size_t kFirstBufferSize = 4096;
constexpr size_t kMaxPassphraseLine = 4096;

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

// At most `limit` bytes, or all up to the end.
crypto::SecretBytes ReadUpTo(int fd, size_t limit, const std::string& name) {
  crypto::SecretBytes buffer(std::min(kFirstBufferSize, limit));
  size_t filled = 0;
  for (;;) {
    filled += ReadFully(fd, buffer.bytes().subspan(filled), name);
    if (filled < buffer.size() || filled == limit) break;
    crypto::SecretBytes larger(std::min(2 * buffer.size(), limit));
    std::ranges::copy(buffer.bytes(), larger.bytes().begin());
    buffer = std::move(larger);
  }
  return crypto::SecretBytes(
      std::span<const std::byte>(buffer.bytes().first(filled)));
}

crypto::SecretBytes ReadPart(int fd, const KeyFilePart& part,
                             const std::string& name) {
  if (part.offset > kMaxKeyFileSize ||
      part.size.value_or(0) > kMaxKeyFileSize) {
    throw UsageError(fmt::format("{}: a key file has at most 8 MiB", name));
  }
  // Read past what lies in front: it may be a pipe.
  const crypto::SecretBytes skipped = ReadUpTo(fd, part.offset, name);
  crypto::SecretBytes content =
      ReadUpTo(fd, part.size.value_or(kMaxKeyFileSize + 1), name);
  if (content.size() > kMaxKeyFileSize) {
    throw UsageError(
        fmt::format("{}: the key file is larger than 8 MiB", name));
  }
  if (skipped.size() < part.offset || content.size() < part.size.value_or(0)) {
    throw UsageError(fmt::format(
        "{}: the key file ends before the part that --key-file-offset and "
        "--key-file-size name",
        name));
  }
  return content;
}

}  // namespace

KeyFilePart ParseKeyFilePart(const std::string& prefix,
                             const std::string& offset,
                             const std::string& size) {
  KeyFilePart part;
  if (!offset.empty()) {
    part.offset = ParseByteSize(prefix + "key-file-offset", offset);
  }
  if (!size.empty()) part.size = ParseByteSize(prefix + "key-file-size", size);
  return part;
}

namespace {

// Leaves the access time alone where the host lets us.
int OpenKeyFile(const std::string& path) {
  const int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY;
  const int fd = open(path.c_str(), flags | O_NOATIME);
  return fd < 0 && errno == EPERM ? open(path.c_str(), flags) : fd;
}

}  // namespace

crypto::SecretBytes ReadKeyFile(const std::string& path,
                                const KeyFilePart& part) {
  if (path == "-") return ReadPart(STDIN_FILENO, part, "standard input");
  const FileDescriptor file(OpenKeyFile(path));
  if (!file.is_open()) ThrowIoError(errno, path);
  ReportOpenedHostFile(
      {.file = path, .fd = file.get(), .use = HostFileUse::kSecret});
  return ReadPart(file.get(), part, path);
}

crypto::SecretBytes ReadPassphraseLine(int fd) {
  const std::string name = fmt::format("file descriptor {}", fd);
  crypto::SecretBytes line(kMaxPassphraseLine + 1);
  size_t length = 0;
  // One byte at a time: what follows the line belongs to somebody else.
  while (length < line.size() &&
         ReadFully(fd, line.bytes().subspan(length, 1), name) == 1 &&
         line.bytes()[length] != std::byte{'\n'}) {
    ++length;
  }
  if (length == line.size()) {
    throw UsageError(fmt::format("{}: the passphrase is longer than {} bytes",
                                 name, kMaxPassphraseLine));
  }
  return crypto::SecretBytes(
      std::span<const std::byte>(line.bytes().first(length)));
}

KeyFiles::KeyFiles(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    files_.push_back({.secret = {.read = [path] { return ReadKeyFile(path); }},
                      .content = std::nullopt});
  }
}

KeyFiles::KeyFiles(std::vector<OfferedSecret> secrets,
                   std::vector<std::string> named,
                   std::unique_ptr<PassphraseSource> others)
    : named_(std::move(named)), others_(std::move(others)) {
  for (OfferedSecret& secret : secrets) {
    files_.push_back({.secret = std::move(secret), .content = std::nullopt});
  }
}

void KeyFiles::OrderForLayer(std::string_view layer) {
  const bool is_named = std::ranges::find(named_, layer) != named_.end();
  order_.clear();
  for (const bool for_backing : {true, false}) {
    if (is_named && for_backing) continue;
    for (const bool accepted : {false, true}) {
      for (size_t i = 0; i < files_.size(); ++i) {
        if (files_[i].secret.for_backing == for_backing &&
            files_[i].accepted == accepted) {
          order_.push_back(i);
        }
      }
    }
  }
}

std::optional<crypto::SecretBytes> KeyFiles::Get(std::string_view layer,
                                                 unsigned attempt) {
  if (attempt == 0) OrderForLayer(layer);
  offered_.reset();
  if (order_.empty() && others_) return others_->Get(layer, attempt);
  if (attempt >= order_.size()) return std::nullopt;
  offered_ = order_[attempt];
  KeyFile& file = files_[*offered_];
  if (!file.content) file.content = file.secret.read();
  return file.content->Clone();
}

void KeyFiles::Accepted() {
  if (offered_) {
    files_[*offered_].accepted = true;
  } else if (others_) {
    others_->Accepted();
  }
}

}  // namespace pellucid::cli
