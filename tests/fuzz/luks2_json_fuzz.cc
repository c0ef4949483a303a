// The JSON text of a LUKS2 header. The first byte says what it has to fit into.

#include <optional>
#include <string>

#include "engine/luks/luks2_json.h"
#include "engine/luks/luks2_metadata.h"
#include "tests/fuzz/fuzz_target.h"

using namespace pellucid;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const luks::Luks2Area area = {.file_name = "header",
                                .json_offset = 4096,
                                .header_bytes = 32 << 10,
                                .area_bytes = 16 << 20,
                                .payload_follows = data[0] % 2 == 0};
  const std::string_view text(reinterpret_cast<const char*>(data + 1),
                              size - 1);
  std::optional<luks::VolumeHeader> header;
  if (!Attempt([&] { header = luks::ParseLuks2Metadata(text, area); })) {
    return 0;
  }
  // What is written from our own words is read back as the same.
  const std::string again =
      luks::NewLuks2Metadata(*header, 12 << 10, 15 << 20).dump();
  std::optional<luks::VolumeHeader> reread;
  Require(Attempt([&] { reread = luks::ParseLuks2Metadata(again, area); }),
          "metadata that is refused when it is written again");
  Require(luks::NewLuks2Metadata(*reread, 12 << 10, 15 << 20).dump() == again,
          "metadata that changes when it is written again");
  return 0;
}
