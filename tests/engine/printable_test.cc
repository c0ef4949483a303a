#include "engine/printable.h"

#include <gtest/gtest.h>

#include <string_view>

namespace pellucid {
namespace {

TEST(Printable, ControlCharactersBecomeVisible) {
  EXPECT_EQ(Printable("a\x1b[31mb\r\n\t\x7f"),
            "a\\x1b[31mb\\x0d\\x0a\\x09\\x7f");
  EXPECT_EQ(Printable(std::string_view("\0x", 2)), "\\x00x");
  EXPECT_EQ(Printable("\xc2\x9b"), "\\xc2\\x9b");
}

TEST(Printable, OtherTextStaysAsItIs) {
  EXPECT_EQ(Printable("Gr\xc3\xbc\xc3\x9f"
                      "e \xc2\xa7 \\x1b"),
            "Gr\xc3\xbc\xc3\x9f"
            "e \xc2\xa7 \\x1b");
  EXPECT_EQ(Printable("\xc2"), "\xc2");
}

}  // namespace
}  // namespace pellucid
