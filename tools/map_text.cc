#include "tools/map_text.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "tools/command_line.h"

namespace pellucid::cli {
namespace {

constexpr const char* kColumns = "{:<18} {:<18} {:>5}  {:<23} {:<18} {}";

std::string WithoutTrailingBlanks(std::string line) {
  line.resize(line.find_last_not_of(' ') + 1);
  return line + '\n';
}

std::string Describe(const MapExtent& extent) {
  std::string text;
  switch (extent.kind) {
    case MapKind::kUnallocated:
      return "unallocated";
    case MapKind::kZero:
      return "zero";
    case MapKind::kData:
      text = extent.encrypted ? "encrypted" : "data";
      break;
    case MapKind::kCompressed:
      text = "compressed";
      break;
  }
  return extent.shared ? text + ", shared" : text;
}

std::string Hex(uint64_t number) { return fmt::format("{:#x}", number); }

}  // namespace

std::string FormatMapHead() {
  return WithoutTrailingBlanks(fmt::format(fmt::runtime(kColumns), "Start",
                                           "Length", "Depth", "What",
                                           "At offset", "of file"));
}

std::string FormatMapLine(const MapExtent& extent,
                          const std::filesystem::path& file) {
  return WithoutTrailingBlanks(
      fmt::format(fmt::runtime(kColumns), Hex(extent.start), Hex(extent.length),
                  extent.depth, Describe(extent),
                  extent.host_offset ? Hex(*extent.host_offset) : "",
                  extent.host_offset ? Printable(file.native()) : ""));
}

std::string FormatMapObject(const MapExtent& extent,
                            const std::filesystem::path& file) {
  const bool is_data =
      extent.kind == MapKind::kData || extent.kind == MapKind::kCompressed;
  nlohmann::ordered_json object = {
      {"start", extent.start},
      {"length", extent.length},
      {"depth", extent.depth},
      {"present", extent.kind != MapKind::kUnallocated},
      {"zero", !is_data},
      {"data", is_data},
      {"compressed", extent.kind == MapKind::kCompressed},
      {"encrypted", extent.encrypted},
      {"shared", extent.shared}};
  if (extent.host_offset) {
    // Programs that know QEMU's map read plaintext at `offset`.
    object[extent.encrypted ? "ciphertext_offset" : "offset"] =
        *extent.host_offset;
    object["filename"] = file.native();
  }
  constexpr bool kAsciiOnly = true;
  return object.dump(-1, ' ', kAsciiOnly,
                     nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace pellucid::cli
