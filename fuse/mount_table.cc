#include "fuse/mount_table.h"

#include <fmt/core.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <sstream>

#include "engine/errors.h"

namespace pellucid::fuse {
namespace {

constexpr char kMountTable[] = "/proc/self/mountinfo";

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

// The kernel writes blanks and backslashes as three octal digits.
std::string Unescape(std::string_view text) {
  const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) &&
        is_octal(text[i + 2]) && is_octal(text[i + 3])) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 +
                                 (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::optional<uint32_t> NumberAfter(std::string_view prefix,
                                    std::string_view options) {
  for (const std::string_view option : Split(options, ',')) {
    if (!option.starts_with(prefix)) continue;
    const std::string_view digits = option.substr(prefix.size());
    uint32_t number = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error == std::errc() && end == digits.data() + digits.size()) {
      return number;
    }
  }
  return std::nullopt;
}

std::optional<MountTableEntry> ParseLine(std::string_view line) {
  // id parent major:minor root MOUNTPOINT options [tags...] - TYPE SOURCE SUPER
  const std::vector<std::string_view> fields = Split(line, ' ');
  size_t dash = 6;
  while (dash < fields.size() && fields[dash] != "-") ++dash;
  if (dash + 3 >= fields.size()) return std::nullopt;
  MountTableEntry entry;
  entry.device = fields[2];
  entry.mountpoint = Unescape(fields[4]);
  entry.type = Unescape(fields[dash + 1]);
  entry.source = Unescape(fields[dash + 2]);
  entry.owner = NumberAfter("user_id=", fields[dash + 3]);
  entry.owner_group = NumberAfter("group_id=", fields[dash + 3]);
  return entry;
}

}  // namespace

std::vector<MountTableEntry> ParseMountTable(std::string_view text) {
  std::vector<MountTableEntry> entries;
  for (const std::string_view line : Split(text, '\n')) {
    if (std::optional<MountTableEntry> entry = ParseLine(line)) {
      entries.push_back(std::move(*entry));
    }
  }
  return entries;
}

std::optional<MountTableEntry> FindMount(
    const std::filesystem::path& mountpoint) {
  std::ifstream file(kMountTable);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) {
    throw IoError(EIO, fmt::format("{}: cannot be read", kMountTable));
  }
  const std::vector<MountTableEntry> entries = ParseMountTable(text.str());
  // Of several mounts at one place the last one covers the others.
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    if (entry->mountpoint == mountpoint) return *entry;
  }
  return std::nullopt;
}

std::filesystem::path ResolveMountpoint(const std::filesystem::path& path) {
  std::filesystem::path trimmed = path;
  if (!trimmed.has_filename()) trimmed = trimmed.parent_path();
  const std::filesystem::path name = trimmed.filename();
  if (!name.empty() && name != "." && name != "..") {
    const std::filesystem::path folder = trimmed.parent_path();
    std::filesystem::path resolved =
        std::filesystem::canonical(folder.empty() ? "." : folder) / name;
    if (FindMount(resolved)) return resolved;
  }
  return std::filesystem::canonical(path);
}

}  // namespace pellucid::fuse
