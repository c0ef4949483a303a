#include "fuse/mount_options.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <span>
#include <string_view>

#include "engine/errors.h"

namespace pellucid::fuse {
namespace {

struct Option {
  std::string name;
  std::optional<std::string> value;  // What stands behind '='.
};

// mount(2) knows these; libfuse and fusermount3 take them by these names.
constexpr std::array<std::string_view, 10> kKernelFlags = {
    "dev",    "nodev", "suid",  "nosuid",  "exec",
    "noexec", "sync",  "async", "dirsync", "noatime"};

// Words of mount(8) that mean nothing here: FUSE leaves the time of access to
// the server, which never moves it. Not every fusermount3 knows them.
constexpr std::array<std::string_view, 11> kWithoutEffect = {
    "defaults",   "nonempty", "atime",        "diratime",
    "nodiratime", "relatime", "norelatime",   "strictatime",
    "nolazytime", "lazytime", "nostrictatime"};

bool IsOneOf(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

// Cuts `list` at commas and removes the backslashes that protect characters.
std::vector<Option> Split(std::string_view list) {
  std::vector<Option> options;
  std::string name;
  std::optional<std::string> value;
  const auto finish = [&] {
    if (!name.empty() || value) options.push_back({name, value});
    name.clear();
    value.reset();
  };
  for (size_t i = 0; i < list.size(); ++i) {
    char c = list[i];
    if (c == ',') {
      finish();
      continue;
    }
    if (c == '=' && !value) {
      value.emplace();
      continue;
    }
    if (c == '\\' && i + 1 < list.size()) c = list[++i];
    (value ? *value : name) += c;
  }
  finish();
  return options;
}

uint32_t ParseNumber(const Option& option, int base, uint32_t least,
                     uint32_t greatest) {
  uint32_t number = 0;
  const std::string& text = *option.value;
  const char* end = text.data() + text.size();
  const auto [parsed_to, error] =
      std::from_chars(text.data(), end, number, base);
  if (error != std::errc() || parsed_to != end || number < least ||
      number > greatest) {
    const std::string range =
        base == 8
            ? fmt::format("an octal number from {:o} to {:o}", least, greatest)
            : fmt::format("a number from {} to {}", least, greatest);
    throw UsageError(
        fmt::format("-o {}={}: expected {}", option.name, text, range));
  }
  return number;
}

// A number of bytes, which may end in K or M, also written KiB or MiB.
uint32_t ParseBytes(const Option& option, uint32_t least, uint32_t greatest) {
  const std::string& text = *option.value;
  const size_t digits =
      std::min(text.find_first_not_of("0123456789"), text.size());
  const std::string unit = text.substr(digits);
  const unsigned shift = unit == "K" || unit == "KiB"   ? 10
                         : unit == "M" || unit == "MiB" ? 20
                                                        : 0;
  Option bytes = option;
  uint32_t number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + digits, number);
  if (shift != 0 && error == std::errc()) {
    bytes.value = std::to_string(uint64_t{number} << shift);
  }
  return ParseNumber(bytes, 10, least, greatest);
}

// Sets what an option without a value means. False if `name` is none.
bool ApplyFlag(const std::string& name, MountOptions& options) {
  if (IsOneOf(kWithoutEffect, name)) return true;
  if (name == "ro") {
    options.access = MountAccess::kReadOnly;
  } else if (name == "rw") {
    options.access = MountAccess::kReadWrite;
  } else if (name == "allow_other") {
    options.allow_other = true;
  } else if (name == "allow_root") {
    options.allow_root = true;
  } else if (name == "auto_unmount") {
    options.auto_unmount = true;
  } else if (IsOneOf(kKernelFlags, name)) {
    options.kernel_flags.push_back(name);
  } else {
    return false;
  }
  return true;
}

// Sets what an option with a value means. False if there is none of its name.
bool ApplyValue(const Option& option, MountOptions& options) {
  // The id of all ones means "unchanged" to the kernel and is nobody's.
  constexpr uint32_t kGreatestId = std::numeric_limits<uint32_t>::max() - 1;
  if (option.name == "uid") {
    options.uid = ParseNumber(option, 10, 0, kGreatestId);
  } else if (option.name == "gid") {
    options.gid = ParseNumber(option, 10, 0, kGreatestId);
  } else if (option.name == "umask") {
    options.umask = ParseNumber(option, 8, 0, 0777);
  } else if (option.name == "max_read") {
    options.max_read = ParseBytes(option, kLeastMaxRead, kGreatestMaxRead);
  } else if (option.name == "max_write") {
    options.max_write = ParseBytes(option, kLeastMaxRead, kGreatestMaxRead);
  } else if (option.name == "fsname") {
    if (option.value->empty()) throw UsageError("-o fsname= needs a name");
    options.fsname = *option.value;
  } else {
    return false;
  }
  return true;
}

bool TakesValue(const std::string& name) {
  return name == "uid" || name == "gid" || name == "umask" ||
         name == "max_read" || name == "max_write" || name == "fsname";
}

void Apply(const Option& option, MountOptions& options) {
  if (!option.value) {
    if (TakesValue(option.name)) {
      throw UsageError(
          fmt::format("-o {0} needs a value: {0}=...", option.name));
    }
    if (ApplyFlag(option.name, options)) return;
  } else {
    if (ApplyValue(option, options)) return;
    MountOptions unused;
    if (ApplyFlag(option.name, unused)) {
      throw UsageError(fmt::format("-o {} takes no value", option.name));
    }
  }
  throw UsageError(fmt::format("-o {}: unknown mount option", option.name));
}

// libfuse cuts options at commas and takes a backslash as an escape.
std::string Escape(std::string_view value) {
  std::string escaped;
  for (const char c : value) {
    if (c == ',' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

}  // namespace

MountOptions ParseMountOptions(const std::vector<std::string>& values) {
  MountOptions options;
  for (const std::string& list : values) {
    for (const Option& option : Split(list)) Apply(option, options);
  }
  if (options.allow_other && options.allow_root) {
    throw UsageError(
        "-o allow_other and -o allow_root exclude each other; allow_other "
        "admits root too");
  }
  return options;
}

bool IsWritableMount(const MountOptions& options, bool device_is_writable) {
  if (options.access == MountAccess::kReadWrite && !device_is_writable) {
    throw Unsupported(
        "-o rw: the image is open for reading only; leave it out to mount "
        "read-only, or open the image for writing (without --read-only)");
  }
  return device_is_writable && options.access != MountAccess::kReadOnly;
}

std::vector<std::string> LibfuseArguments(const MountOptions& options,
                                          bool is_writable) {
  const std::string fsname =
      options.fsname.empty() ? "pellucid" : options.fsname;
  std::vector<std::string> arguments = {
      is_writable ? "-orw" : "-oro", "-odefault_permissions",
      "-osubtype=pellucid", "-ofsname=" + Escape(fsname),
      fmt::format("-omax_read={}", options.max_read)};
  if (options.allow_other) arguments.push_back("-oallow_other");
  if (options.allow_root) arguments.push_back("-oallow_root");
  if (options.auto_unmount) arguments.push_back("-oauto_unmount");
  for (const std::string& flag : options.kernel_flags) {
    arguments.push_back("-o" + flag);
  }
  return arguments;
}

}  // namespace pellucid::fuse
