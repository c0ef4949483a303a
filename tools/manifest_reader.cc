#include "tools/manifest_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "crypto/hash.h"
#include "crypto/unsupported_algorithm.h"
#include "engine/errors.h"

namespace pellucid::cli {
namespace {

using Json = nlohmann::json;

constexpr size_t kReadBytes = size_t{256} << 10;

// More zeros are more than one thread's work: they may be stored in the copy.
constexpr uint64_t kMaxZeros = uint64_t{256} << 20;

// The field, or null if the line has none.
const Json* Field(const Json& line, const char* name) {
  const auto found = line.find(name);
  return found == line.end() ? nullptr : &*found;
}

}  // namespace

bool ManifestReader::Lines::Next(std::string& line) {
  for (;;) {
    const size_t newline = buffer_.find('\n', used_);
    const bool found = newline != std::string::npos;
    if ((found ? newline : buffer_.size()) - used_ > kMaxManifestLine) {
      throw CorruptImage(fmt::format(
          "{}: line {} is longer than {} bytes; this is no manifest, or one "
          "that is damaged",
          file_.file().native(), number_ + 1, kMaxManifestLine));
    }
    if (found) {
      line.assign(buffer_, used_, newline - used_);
      used_ = newline + 1;
      ++number_;
      return true;
    }
    buffer_.erase(0, used_);
    used_ = 0;
    if (position_ == end_) return false;  // The last line ends with a newline.
    const size_t begin = buffer_.size();
    buffer_.resize(begin + static_cast<size_t>(std::min<uint64_t>(
                               kReadBytes, end_ - position_)));
    const auto added =
        std::as_writable_bytes(std::span(buffer_).subspan(begin));
    file_.Read(position_, added);
    position_ += added.size();
  }
}

ManifestReader::ManifestReader(const std::string& file)
    : file_(FileDevice::Open(file, FileDevice::Sharing::kForced)),
      last_line_(FindLastLine()),
      lines_(*file_, last_line_) {
  std::string line;
  if (!lines_.Next(line)) ThrowCorrupt("it has a single line");
  ParseHeader(line);
  std::string totals(static_cast<size_t>(file_->size() - last_line_), '\0');
  file_->Read(last_line_, std::as_writable_bytes(std::span(totals)));
  ParseTotals(totals);
}

void ManifestReader::ThrowCorrupt(const std::string& what) const {
  throw CorruptImage(fmt::format(
      "{}: {}; this is no manifest, or one that is damaged or incomplete",
      file_->file().native(), what));
}

uint64_t ManifestReader::FindLastLine() {
  const uint64_t size = file_->size();
  std::string tail(
      static_cast<size_t>(std::min<uint64_t>(size, kMaxManifestLine)), '\0');
  file_->Read(size - tail.size(), std::as_writable_bytes(std::span(tail)));
  if (!tail.ends_with('\n')) ThrowCorrupt("it does not end with a newline");
  tail.pop_back();
  const size_t newline = tail.rfind('\n');
  if (newline == std::string::npos) {
    if (tail.size() + 1 == size) ThrowCorrupt("it has a single line");
    ThrowCorrupt(
        fmt::format("the last line is longer than {} bytes", kMaxManifestLine));
  }
  return size - (tail.size() + 1) + newline + 1;
}

void ManifestReader::CheckChecksum(const std::string& expected) {
  const auto hasher = crypto::MakeHasher("sha256");
  std::vector<std::byte> buffer(kReadBytes);
  for (uint64_t at = 0; at < last_line_; at += buffer.size()) {
    buffer.resize(static_cast<size_t>(
        std::min<uint64_t>(buffer.size(), last_line_ - at)));
    file_->Read(at, buffer);
    hasher->Update(buffer);
  }
  std::vector<std::byte> checksum(hasher->digest_size());
  hasher->Final(checksum);
  if (FormatHex(checksum) != expected) {
    ThrowCorrupt(
        fmt::format("{} in the last line is not that of the lines "
                    "before it",
                    kManifestChecksumField));
  }
}

void ManifestReader::ParseHeader(const std::string& line) {
  const Json json = Json::parse(line, nullptr, false);
  const Json* version = nullptr;
  if (json.is_object()) version = Field(json, kManifestVersionField);
  if (version == nullptr) {
    ThrowCorrupt(fmt::format("line 1 is no object with the field {}",
                             kManifestVersionField));
  }
  if (!version->is_number_unsigned() ||
      version->get<uint64_t>() != kManifestVersion) {
    throw Unsupported(
        fmt::format("{}: a manifest of version {} is not supported, only {}",
                    file_->file().native(), version->dump(), kManifestVersion));
  }
  const auto number = [&](const char* name) {
    const Json* field = Field(json, name);
    if (field == nullptr || !field->is_number_unsigned()) {
      ThrowCorrupt(fmt::format("field {} of line 1 is not a number", name));
    }
    return field->get<uint64_t>();
  };
  header_.image_size = number("image_size");
  header_.offset = number("offset");
  header_.size = number("size");
  header_.chunk_size = number("chunk_size");
  if (header_.offset > header_.image_size ||
      header_.size > header_.image_size - header_.offset) {
    ThrowCorrupt("fields offset and size of line 1 reach behind image_size");
  }
  if (!IsChunkSize(header_.chunk_size)) {
    ThrowCorrupt(fmt::format(
        "field chunk_size of line 1 is {}, not a multiple of {} up to {}",
        header_.chunk_size, kMinChunkSize, kMaxChunkSize));
  }
  const Json* algorithms = Field(json, "algorithms");
  if (algorithms == nullptr || !algorithms->is_array() || algorithms->empty() ||
      algorithms->size() > kMaxManifestAlgorithms) {
    ThrowCorrupt(
        fmt::format("field algorithms of line 1 is no list of 1 to {} "
                    "names",
                    kMaxManifestAlgorithms));
  }
  for (const Json& algorithm : *algorithms) {
    if (!algorithm.is_string()) {
      ThrowCorrupt("field algorithms of line 1 has what is no name");
    }
    header_.algorithms.push_back(algorithm.get<std::string>());
    try {
      digest_sizes_.push_back(crypto::DigestSize(header_.algorithms.back()));
    } catch (const crypto::UnsupportedAlgorithm& error) {
      throw Unsupported(
          fmt::format("{}: {}", file_->file().native(), error.what()));
    }
  }
}

void ManifestReader::ParseTotals(const std::string& line) {
  const Json json = Json::parse(line, nullptr, false);
  const Json* checksum = nullptr;
  if (json.is_object()) checksum = Field(json, kManifestChecksumField);
  if (checksum == nullptr || !checksum->is_string()) {
    ThrowCorrupt(
        fmt::format("the last line has no field {}", kManifestChecksumField));
  }
  CheckChecksum(checksum->get<std::string>());
  const auto number = [&](const char* name) {
    const Json* field = Field(json, name);
    if (field == nullptr || !field->is_number_unsigned()) {
      ThrowCorrupt(
          fmt::format("field {} of the last line is not a number", name));
    }
    return field->get<uint64_t>();
  };
  total_chunks_ = number("chunks");
  total_zero_bytes_ = number("zero_bytes");
  if (number("bytes") != header_.size) {
    ThrowCorrupt("field bytes of the last line is not size of the first");
  }
}

ManifestChunk ManifestReader::ParseChunk(const std::string& line) {
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) {
    ThrowCorrupt(fmt::format("line {} is no object", lines_.number()));
  }
  const auto number = [&](const char* name) {
    const Json* field = Field(json, name);
    if (field == nullptr || !field->is_number_unsigned()) {
      ThrowCorrupt(fmt::format("field {} of line {} is not a number", name,
                               lines_.number()));
    }
    return field->get<uint64_t>();
  };
  ManifestChunk chunk;
  chunk.range = {.offset = number("offset"), .length = number("length")};
  if (const Json* zeros = Field(json, "zeros"); zeros != nullptr) {
    if (*zeros != Json(true)) {
      ThrowCorrupt(
          fmt::format("field zeros of line {} is not true", lines_.number()));
    }
    return chunk;
  }
  for (size_t i = 0; i < header_.algorithms.size(); ++i) {
    const std::string& algorithm = header_.algorithms[i];
    const Json* hex = Field(json, algorithm.c_str());
    std::vector<std::byte> digest(digest_sizes_[i]);
    if (hex == nullptr || !hex->is_string() ||
        !ParseHex(hex->get_ref<const std::string&>(), digest)) {
      ThrowCorrupt(fmt::format("field {} of line {} is no hash of {} bytes",
                               algorithm, lines_.number(), digest.size()));
    }
    chunk.digests.push_back(std::move(digest));
  }
  return chunk;
}

void ManifestReader::Follow(const ManifestChunk& chunk) {
  const uint64_t rest = header_.size - next_offset_;
  const uint64_t length = chunk.range.length;
  const bool whole = length % header_.chunk_size == 0 || length == rest;
  const bool one = length == std::min(rest, header_.chunk_size);
  if (chunk.range.offset != next_offset_ || length == 0 || length > rest ||
      !(chunk.is_zeros() ? whole : one)) {
    ThrowCorrupt(fmt::format(
        "line {} is about the {} bytes from {} on; chunks of {} bytes should "
        "follow from {} on, up to {}",
        lines_.number(), length, chunk.range.offset, header_.chunk_size,
        next_offset_, header_.size));
  }
  next_offset_ += length;
  chunks_ +=
      length / header_.chunk_size + (length % header_.chunk_size != 0 ? 1 : 0);
  if (chunk.is_zeros()) zero_bytes_ += length;
}

bool ManifestReader::ReadChunk(ManifestChunk& chunk) {
  if (has_ahead_) {
    has_ahead_ = false;
    chunk = std::move(ahead_);
    return true;
  }
  std::string line;
  if (lines_.Next(line)) {
    chunk = ParseChunk(line);
    Follow(chunk);
    return true;
  }
  if (next_offset_ != header_.size) {
    ThrowCorrupt(fmt::format("its chunks end at byte {} of {}", next_offset_,
                             header_.size));
  }
  if (chunks_ != total_chunks_ || zero_bytes_ != total_zero_bytes_) {
    ThrowCorrupt(fmt::format(
        "the last line counts {} chunks and {} bytes of zeros, but there are "
        "{} and {}",
        total_chunks_, total_zero_bytes_, chunks_, zero_bytes_));
  }
  return false;
}

std::vector<ManifestChunk> ManifestReader::Next(uint64_t max_bytes) {
  const std::lock_guard lock(mutex_);
  std::vector<ManifestChunk> chunks;
  uint64_t bytes = 0;
  for (ManifestChunk chunk; ReadChunk(chunk);) {
    bytes += chunk.range.length;
    if (!chunks.empty() && (chunk.is_zeros() || bytes > max_bytes)) {
      KeepForLater(std::move(chunk));
      break;
    }
    if (chunk.is_zeros()) SplitZeros(chunk);
    chunks.push_back(std::move(chunk));
    if (chunks.back().is_zeros()) break;
  }
  return chunks;
}

void ManifestReader::KeepForLater(ManifestChunk chunk) {
  ahead_ = std::move(chunk);
  has_ahead_ = true;
}

void ManifestReader::SplitZeros(ManifestChunk& zeros) {
  const uint64_t length =
      std::max(kMaxZeros / header_.chunk_size, uint64_t{1}) *
      header_.chunk_size;
  if (zeros.range.length <= length) return;
  KeepForLater({.range = {.offset = zeros.range.offset + length,
                          .length = zeros.range.length - length},
                .digests = {}});
  zeros.range.length = length;
}

}  // namespace pellucid::cli
