#include "tools/manifest_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/is_zero.h"
#include "tools/utc_date.h"

namespace pellucid::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kBufferBytes = size_t{64} << 10;

// Small chunks are read several at a time.
size_t PieceLength(uint64_t chunk_size) {
  const uint64_t chunks =
      std::max<uint64_t>(1, PieceCut::kUsualLength / chunk_size);
  return static_cast<size_t>(chunks * chunk_size);
}

std::string FormatJson(const Json& json) {
  return json.dump(-1, ' ', true, Json::error_handler_t::replace);
}

std::string FirstLine(const ManifestHeader& header) {
  Json line;
  line[kManifestVersionField] = kManifestVersion;
  line["pellucid"] = PELLUCID_VERSION;
  line["created"] = FormatUtcDate(std::time(nullptr));
  line["image"] = header.image;
  line["image_size"] = header.image_size;
  line["offset"] = header.offset;
  line["size"] = header.size;
  line["chunk_size"] = header.chunk_size;
  line["algorithms"] = header.algorithms;
  return FormatJson(line);
}

}  // namespace

ManifestWriter::ManifestWriter(WritableDevice& file,
                               const ManifestHeader& header)
    : file_(file),
      header_(header),
      piece_length_(PieceLength(header.chunk_size)),
      checksum_(crypto::MakeHasher("sha256")) {
  const std::lock_guard lock(mutex_);
  WriteLine(FirstLine(header));
}

void ManifestWriter::Add(uint64_t sequence, uint64_t offset,
                         std::span<const std::byte> bytes) {
  std::vector<std::unique_ptr<crypto::Hasher>> hashers;
  for (const std::string& algorithm : header_.algorithms) {
    hashers.push_back(crypto::MakeHasher(algorithm));
  }
  std::vector<Chunk> chunks;
  while (!bytes.empty()) {
    const auto chunk = bytes.first(static_cast<size_t>(
        std::min<uint64_t>(bytes.size(), header_.chunk_size)));
    Chunk described = {.range = {.offset = offset, .length = chunk.size()},
                       .digests = {}};
    if (!IsZero(chunk)) {
      for (const auto& hasher : hashers) {
        std::vector<std::byte> digest(hasher->digest_size());
        hasher->Update(chunk);
        hasher->Final(digest);
        described.digests.push_back(FormatHex(digest));
      }
    }
    chunks.push_back(std::move(described));
    offset += chunk.size();
    bytes = bytes.subspan(chunk.size());
  }
  Put(sequence, std::move(chunks));
}

void ManifestWriter::AddZeros(uint64_t sequence, uint64_t offset,
                              uint64_t length) {
  Put(sequence,
      {{.range = {.offset = offset, .length = length}, .digests = {}}});
}

void ManifestWriter::Put(uint64_t sequence, std::vector<Chunk> chunks) {
  const std::lock_guard lock(mutex_);
  early_.emplace(sequence, std::move(chunks));
  while (!early_.empty() && early_.begin()->first == next_sequence_) {
    for (const Chunk& chunk : early_.begin()->second) WriteChunk(chunk);
    early_.erase(early_.begin());
    ++next_sequence_;
  }
}

void ManifestWriter::WriteChunk(const Chunk& chunk) {
  const uint64_t length = chunk.range.length;
  chunks_ +=
      length / header_.chunk_size + (length % header_.chunk_size != 0 ? 1 : 0);
  if (chunk.digests.empty()) {
    if (zeros_.length == 0) zeros_.offset = chunk.range.offset;
    zeros_.length += length;
    zero_bytes_ += length;
    return;
  }
  EndZeros();
  std::string line = fmt::format("{{\"offset\":{},\"length\":{}",
                                 chunk.range.offset - header_.offset, length);
  for (size_t i = 0; i < chunk.digests.size(); ++i) {
    line +=
        fmt::format(",\"{}\":\"{}\"", header_.algorithms[i], chunk.digests[i]);
  }
  WriteLine(line + "}");
}

void ManifestWriter::EndZeros() {
  if (zeros_.length == 0) return;
  WriteLine(fmt::format("{{\"offset\":{},\"length\":{},\"zeros\":true}}",
                        zeros_.offset - header_.offset, zeros_.length));
  zeros_.length = 0;
}

void ManifestWriter::WriteLine(std::string_view line) {
  const size_t begin = buffer_.size();
  buffer_ += line;
  buffer_ += '\n';
  checksum_->Update(std::as_bytes(std::span(buffer_).subspan(begin)));
  if (buffer_.size() >= kBufferBytes) WriteBuffer();
}

void ManifestWriter::WriteBuffer() {
  file_.Write(written_, std::as_bytes(std::span(buffer_)));
  written_ += buffer_.size();
  buffer_.clear();
}

void ManifestWriter::Finish(const std::vector<Digest>& whole) {
  const std::lock_guard lock(mutex_);
  EndZeros();
  Json line;
  line["chunks"] = chunks_;
  line["bytes"] = header_.size;
  line["zero_bytes"] = zero_bytes_;
  line["hashes"] = Json::object();
  for (const Digest& digest : whole) {
    line["hashes"][digest.algorithm] = FormatHex(digest.bytes);
  }
  std::vector<std::byte> checksum(checksum_->digest_size());
  checksum_->Final(checksum);
  line[kManifestChecksumField] = FormatHex(checksum);
  WriteLine(FormatJson(line));
  WriteBuffer();
}

}  // namespace pellucid::cli
