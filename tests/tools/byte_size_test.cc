#include "tools/byte_size.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>

#include "engine/errors.h"

namespace pellucid::cli {
namespace {

TEST(ByteSize, SuffixesArePowersOf1024) {
  const std::pair<std::string, uint64_t> cases[] = {
      {"0", 0},
      {"512", 512},
      {"1K", 1024},
      {"1k", 1024},
      {"4KiB", 4096},
      {"10M", uint64_t{10} << 20},
      {"3g", uint64_t{3} << 30},
      {"8TiB", uint64_t{8} << 40},
      {"2P", uint64_t{2} << 50},
      {"15E", uint64_t{15} << 60},
      {"18446744073709551615", UINT64_MAX}};
  for (const auto& [text, bytes] : cases) {
    EXPECT_EQ(ParseByteSize("length", text), bytes) << text;
  }
}

TEST(ByteSize, WhatIsNoSizeIsRefusedWithTheOption) {
  for (const char* text : {"", "K", "-1", "+1", " 1", "1 K", "1KB", "1B", "1Ki",
                           "1KiBs", "0x10", "1.5G", "ten", "1kib"}) {
    try {
      ParseByteSize("length", text);
      FAIL() << "accepted '" << text << "'";
    } catch (const UsageError& error) {
      EXPECT_NE(std::string(error.what()).find("--length"), std::string::npos);
    }
  }
}

TEST(ByteSize, WhatDoesNotFitIn64BitsIsRefused) {
  for (const char* text : {"16E", "18446744073709551616", "20000000000G"}) {
    EXPECT_THROW(ParseByteSize("length", text), UsageError) << text;
  }
}

TEST(ByteSize, IsRoundedToOneDigit) {
  EXPECT_EQ(FormatByteSize(0), "0 bytes");
  EXPECT_EQ(FormatByteSize(1023), "1023 bytes");
  EXPECT_EQ(FormatByteSize(1024), "1 KiB");
  EXPECT_EQ(FormatByteSize(1610612736), "1.5 GiB");
  EXPECT_EQ(FormatByteSize(uint64_t{8} << 40), "8 TiB");
  EXPECT_EQ(FormatByteSize(UINT64_MAX), "16 EiB");
}

TEST(ByteSize, ExactSizeHasBothNumbers) {
  EXPECT_EQ(FormatExactByteSize(1610612736), "1.5 GiB (1610612736 bytes)");
  EXPECT_EQ(FormatExactByteSize(512), "512 bytes");
}

}  // namespace
}  // namespace pellucid::cli
