#include "engine/named_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/errors.h"

namespace pellucid {
namespace {

using nlohmann::json;

bool IsLocalDriver(const std::string& driver) {
  return driver.empty() || driver == "file" || driver == "host_device";
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
  if (path.empty() || !IsLocalDriver(file_driver)) {
    throw Unsupported("only local files are supported");
  }
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
  if (HasProtocol(name)) throw Unsupported("only local files are supported");
  return {.path = name, .format = format};
}

// A name for a message: it can be as long as a cluster.
std::string Shortened(const std::string& name) {
  constexpr size_t kMaxShown = 1023;
  return name.size() <= kMaxShown ? name : name.substr(0, kMaxShown) + "...";
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

}  // namespace pellucid
