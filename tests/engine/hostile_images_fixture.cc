#include "tests/engine/hostile_images_fixture.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "engine/open_image.h"
#include "tests/engine/opened_image_fixture.h"

namespace pellucid {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// How many extents a walk looks at.
constexpr int kMaxSteps = 5000;

void WalkExtents(BlockDevice& device, uint64_t end) {
  uint64_t at = 0;
  for (int i = 0; at < end && i < kMaxSteps; ++i) {
    const Extent extent = device.ExtentAt(at, end - at);
    ASSERT_GT(extent.length, 0U);
    ASSERT_LE(extent.length, end - at);
    at += extent.length;
  }
}

}  // namespace

QemuImage HostileImageTest::PlainImage(const std::string& name) {
  QemuImage image;
  image.name = name;
  image.encryption = "none";
  image.virtual_size = 3 << 20;
  return image;
}

Bytes HostileImageTest::Make(QemuImage image) {
  images_.Create(image);
  images_.Write(image.name, ScatteredWrites(images_, image.virtual_size,
                                            image.cluster_size, 12, 1));
  return ReadHostFile(images_.path(image.name));
}

void HostileImageTest::Put(const std::string& name,
                           std::span<const std::byte> content) {
  WriteHostFile(images_.path(name), content);
}

Outcome HostileImageTest::Attempt(const std::string& name, uint64_t limit) {
  Outcome outcome;
  try {
    const auto device = images_.Open(name);
    outcome.content.resize(std::min(device->size(), limit));
    WalkExtents(*device, outcome.content.size());
    device->Read(0, outcome.content);
    Bytes end(std::min<uint64_t>(device->size(), 65536));
    if (!end.empty()) {
      device->ExtentAt(device->size() - end.size(), end.size());
      device->Read(device->size() - end.size(), end);
    }
  } catch (const Error& error) {
    outcome.error = error.exit_code();
    outcome.text = error.what();
  }
  return outcome;
}

void HostileImageTest::ExpectRefused(const std::string& name, ExitCode kind,
                                     const std::vector<std::string>& words) {
  const Outcome outcome = Attempt(name);
  ASSERT_TRUE(outcome.error.has_value()) << "was opened and read";
  EXPECT_EQ(*outcome.error, kind) << outcome.text;
  EXPECT_THAT(outcome.text, Not(HasSubstr("\n")));
  EXPECT_THAT(outcome.text, HasSubstr(name));
  for (const std::string& word : words) {
    EXPECT_THAT(outcome.text, HasSubstr(word));
  }
}

uint64_t HostileImageTest::L1TableOffset(const Bytes& image) {
  return LoadNumber(image, 40, 8);
}

uint64_t HostileImageTest::L2TableOffset(const Bytes& image) {
  const uint64_t entry = LoadNumber(image, L1TableOffset(image), 8);
  return entry & 0x00ff'ffff'ffff'fe00;
}

uint64_t HostileImageTest::FirstL2Entry(const Bytes& image) {
  for (uint64_t at = L2TableOffset(image); at + 8 <= image.size(); at += 8) {
    if (LoadNumber(image, at, 8) << 2 != 0) return at;
  }
  throw std::runtime_error("no L2 entry is in use");
}

uint64_t HostileImageTest::ExtensionOffset(const Bytes& image, uint32_t type) {
  uint64_t at = LoadNumber(image, 100, 4);
  for (;;) {
    const uint64_t found = LoadNumber(image, at, 4);
    if (found == type) return at;
    if (found == 0) throw std::runtime_error("no such header extension");
    at += 8 + (LoadNumber(image, at + 4, 4) + 7) / 8 * 8;
  }
}

}  // namespace pellucid
