#include "crypto/secret_bytes.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>

#include "tests/crypto/test_bytes.h"

namespace pellucid::crypto {
namespace {

TEST(SecretBytesTest, StartsAsZeros) {
  const SecretBytes secret(5000);
  EXPECT_EQ(secret.size(), 5000U);
  EXPECT_TRUE(std::ranges::all_of(
      secret.bytes(), [](std::byte b) { return b == std::byte{0}; }));
}

TEST(SecretBytesTest, EmptyNeedsNoMemory) {
  const SecretBytes secret;
  EXPECT_TRUE(secret.empty());
  EXPECT_TRUE(SecretBytes(size_t{0}).empty());
  EXPECT_TRUE(SecretBytes(std::span<const std::byte>()).empty());
}

TEST(SecretBytesTest, CopiesOnlyWhenAsked) {
  const Bytes original = RandomBytes(77, 1);
  const SecretBytes secret{std::span<const std::byte>(original)};
  SecretBytes clone = secret.Clone();
  clone.bytes()[0] ^= std::byte{1};
  EXPECT_EQ(ToHex(secret.bytes()), ToHex(original));
  EXPECT_NE(ToHex(clone.bytes()), ToHex(original));
}

TEST(SecretBytesTest, MovingTakesTheBytesAlong) {
  const Bytes original = RandomBytes(33, 2);
  SecretBytes first{std::span<const std::byte>(original)};
  SecretBytes second(std::move(first));
  EXPECT_EQ(ToHex(second.bytes()), ToHex(original));
  SecretBytes third(12);
  third = std::move(second);
  EXPECT_EQ(ToHex(third.bytes()), ToHex(original));
}

// The flags of the mapping that holds `address`, as /proc/self/smaps has them.
std::string MappingFlags(const void* address) {
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  std::ifstream smaps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    uintptr_t first = 0;
    uintptr_t last = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &first, &last) == 2) {
      inside = first <= wanted && wanted < last;
    } else if (inside && line.starts_with("VmFlags:")) {
      return line;
    }
  }
  return "";
}

TEST(SecretBytesTest, IsLeftOutOfCoreDumps) {
  const SecretBytes secret(32);
  EXPECT_NE(MappingFlags(secret.bytes().data()).find(" dd"), std::string::npos);
}

// Sanitizers turn mlock() off, and RLIMIT_MEMLOCK may be nothing.
bool CanLockMemory() {
  void* page = mmap(nullptr, 1, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  (void)mlock(page, 1);
  const bool locked = MappingFlags(page).find(" lo") != std::string::npos;
  munmap(page, 1);
  return locked;
}

TEST(SecretBytesTest, IsLockedIntoMemory) {
  if (!CanLockMemory()) GTEST_SKIP() << "memory cannot be locked here";
  const SecretBytes secret(32);
  EXPECT_NE(MappingFlags(secret.bytes().data()).find(" lo"), std::string::npos);
}

TEST(SecureWipeTest, LeavesZeros) {
  const Bytes original = RandomBytes(100, 3);
  Bytes bytes = original;
  SecureWipe(std::span(bytes).subspan(10, 80));
  EXPECT_EQ(ToHex(bytes), ToHex(original).substr(0, 20) +
                              std::string(160, '0') +
                              ToHex(original).substr(180));
}

TEST(ConstantTimeEqualsTest, ComparesLengthAndEveryByte) {
  const Bytes a = RandomBytes(40, 4);
  EXPECT_TRUE(ConstantTimeEquals(a, a));
  EXPECT_TRUE(ConstantTimeEquals({}, {}));
  EXPECT_FALSE(ConstantTimeEquals(a, std::span(a).first(39)));
  for (size_t i = 0; i < a.size(); ++i) {
    Bytes b = a;
    b[i] ^= std::byte{0x80};
    EXPECT_FALSE(ConstantTimeEquals(a, b)) << i;
  }
}

}  // namespace
}  // namespace pellucid::crypto
