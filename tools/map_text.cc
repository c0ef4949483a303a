#include "tools/map_text.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "engine/printable.h"

namespace pellucid::cli {
namespace {

std::string Hex(uint64_t number) { return fmt::format("{:#x}", number); }

std::string FormatRow(uint64_t size, std::string_view start,
                      std::string_view length, std::string_view depth,
                      std::string_view what, std::string_view offset,
                      std::string_view file) {
  const size_t width =
      std::max(Hex(size).size(), std::string_view("At offset").size());
  std::string row =
      fmt::format("{:<{}}  {:<{}}  {:>5}  {:<18}  {:<{}}  {}", start, width,
                  length, width, depth, what, offset, width, file);
  row.resize(row.find_last_not_of(' ') + 1);
  return row + '\n';
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

}  // namespace

std::string FormatMapHead(uint64_t size) {
  return FormatRow(size, "Start", "Length", "Depth", "What", "At offset",
                   "of file");
}

std::string FormatMapLine(const MapExtent& extent,
                          const std::filesystem::path& file, uint64_t size) {
  return FormatRow(size, Hex(extent.start), Hex(extent.length),
                   std::to_string(extent.depth), Describe(extent),
                   extent.host_offset ? Hex(*extent.host_offset) : "",
                   extent.host_offset ? Printable(file.native()) : "");
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
