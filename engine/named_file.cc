#include "engine/named_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>

#include "engine/errors.h"
#include "engine/host_file.h"

namespace pellucid {
namespace {

using nlohmann::json;

bool IsLocalDriver(const std::string& driver) {
  return driver.empty() || driver == "file" || driver == "host_device";
}

// A name for a message: it can be as long as a cluster.
std::string Shortened(const std::string& name) {
  constexpr size_t kMaxShown = 1023;
  return name.size() <= kMaxShown ? name : name.substr(0, kMaxShown) + "...";
}

[[noreturn]] void ThrowNotLocal(const std::string& driver) {
  if (driver.empty()) throw Unsupported("only local files are supported");
  throw Unsupported(fmt::format(
      "\"{}\" is not supported here, only local files are", Shortened(driver)));
}

// QEMU spells "file.filename" flat or nested; both mean the same.
std::string Option(const json& options, const char* group, const char* name) {
  const json::json_pointer nested = json::json_pointer() / group / name;
  const std::string flat = fmt::format("{}.{}", group, name);
  if (options.contains(flat)) return options.at(flat).get<std::string>();
  if (options.contains(nested)) return options.at(nested).get<std::string>();
  return "";
}

// Options that change which bytes are read, and that nothing here follows.
void RefuseJsonOptions(const json& options) {
  for (const auto& [key, ignored] : options.items()) {
    const std::string group = key.substr(0, key.find('.'));
    for (const char* unsupported :
         {"offset", "size", "backing", "data-file", "header"}) {
      if (group == unsupported) {
        throw Unsupported(
            fmt::format("the option \"{}\" is not supported", group));
      }
    }
  }
}

// Takes a json: name apart into a plain one.
NamedFile ParseJsonName(const std::string& text, const std::string& format) {
  const json options = json::parse(text);
  RefuseJsonOptions(options);
  std::string driver = options.value("driver", "");
  std::string file_driver = Option(options, "file", "driver");
  std::string path = Option(options, "file", "filename");
  if (path.empty() && IsLocalDriver(driver)) {
    path = options.value("filename", "");
    file_driver = driver;
    driver = "";
  }
  if (!IsLocalDriver(file_driver)) ThrowNotLocal(file_driver);
  if (path.empty()) ThrowNotLocal(driver);
  return {.path = path, .format = driver.empty() ? format : driver};
}

// "nbd://host", "rbd:pool/image": a word and a colon in front of any slash.
bool HasProtocol(const std::string& name) {
  const size_t end = name.find_first_of(":/");
  return end != std::string::npos && end != 0 && name[end] == ':';
}

NamedFile ParseName(const std::string& name, const std::string& format) {
  if (name.starts_with("json:")) return ParseJsonName(name.substr(5), format);
  if (name.starts_with("file:")) {
    return {.path = name.substr(5), .format = format};
  }
  if (HasProtocol(name)) ThrowNotLocal(name.substr(0, name.find(':')));
  return {.path = name, .format = format};
}

}  // namespace

NamedFile ResolveNamedFile(const std::string& name, const std::string& format,
                           const std::filesystem::path& named_by) {
  NamedFile file;
  try {
    file = ParseName(name, format);
  } catch (const json::exception&) {
    throw CorruptImage(fmt::format(
        "{}: the file name \"{}\" in the image is not the JSON that it says",
        named_by.native(), Shortened(name)));
  } catch (const Unsupported& why) {
    throw Unsupported(fmt::format("{}: the file name \"{}\" in the image: {}",
                                  named_by.native(), Shortened(name),
                                  why.what()));
  }
  if (file.path.native().find('\0') != std::string::npos) {
    // Without the name: a message would end at the NUL.
    throw CorruptImage(
        fmt::format("{}: a file name in the image has a NUL byte in it",
                    named_by.native()));
  }
  if (IsLocalDriver(file.format)) {
    file.format = file.format.empty() ? "" : "raw";
  }
  if (!file.format.empty() && file.format != "qcow2" && file.format != "raw" &&
      file.format != "luks") {
    throw Unsupported(fmt::format(
        "{}: the format \"{}\" of its backing file \"{}\" is not supported; "
        "qcow2, raw and luks are",
        named_by.native(), Shortened(file.format), Shortened(name)));
  }
  file.path = named_by.parent_path() / file.path;
  return file;
}

NamedFileRules::NamedFileRules(
    const std::vector<std::filesystem::path>& allowed_paths) {
  for (const std::filesystem::path& path : allowed_paths) {
    std::error_code error;
    allowed_.push_back(std::filesystem::canonical(path, error));
    if (error) {
      throw UsageError(
          fmt::format("--allow-path {}: {}", path.native(), error.message()));
    }
  }
}

void NamedFileRules::Check(int path_fd, const struct stat& status,
                           const std::filesystem::path& file) const {
  const bool is_device = S_ISBLK(status.st_mode);
  if (allowed_.empty() && !is_device) return;
  std::error_code error;
  const std::filesystem::path real = std::filesystem::read_symlink(
      fmt::format("/proc/self/fd/{}", path_fd), error);
  if (error) ThrowHostError(file, error.value(), "find out where it is");
  const auto allows = [&](const std::filesystem::path& allowed) {
    if (real == allowed) return true;
    // As components: /srv/images is no folder of /srv/images2/file.
    return !is_device &&
           std::ranges::mismatch(allowed, real).in1 == allowed.end();
  };
  if (std::ranges::any_of(allowed_, allows)) return;
  if (is_device) {
    throw NotAllowed(fmt::format(
        "{0} is a block device, which an image may not name by itself; "
        "--allow-path {0} allows it",
        real.native()));
  }
  throw NotAllowed(
      fmt::format("{} is in none of the folders that --allow-path "
                  "names",
                  real.native()));
}

}  // namespace pellucid
