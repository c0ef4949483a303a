// Images that are cut off or have bits changed at random: only an Error may
// come out, in bounded time, or the content that QEMU reads as well.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <ostream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/engine/hostile_images_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

constexpr uint64_t kLimit = 2 << 20;

struct Kind {
  std::string name;
  uint64_t cluster_size;
  std::string encryption;
  bool extended_l2 = false;
  bool compressed = false;
  bool version2 = false;
  bool has_backing = false;
  std::string option = "";  // For `qemu-img create -o`.
};

void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

class MutatedImageTest : public HostileImageTest,
                         public ::testing::WithParamInterface<Kind> {
 protected:
  Bytes MakeKind() {
    QemuImage image = PlainImage();
    image.virtual_size = (1 << 20) + 512;
    image.cluster_size = GetParam().cluster_size;
    image.encryption = GetParam().encryption;
    image.extended_l2 = GetParam().extended_l2;
    image.version2 = GetParam().version2;
    if (GetParam().has_backing) {
      QemuImage base = PlainImage("base.qcow2");
      base.virtual_size = 1 << 20;
      Make(base);
      image.backing = base.name;
    }
    if (GetParam().option == "data_file") {
      image.more_options = {"data_file=" + images_.path("data").string()};
    } else if (!GetParam().option.empty()) {
      image.more_options = {GetParam().option};
    }
    Bytes bytes = Make(image);
    if (!GetParam().compressed) return bytes;
    RunTool({"qemu-img", "convert", "-c", "-O", "qcow2", "-o",
             "cluster_size=" + std::to_string(image.cluster_size) +
                 (GetParam().option.empty() ? "" : "," + GetParam().option),
             images_.path(image.name), images_.path("packed")});
    bytes = ReadHostFile(images_.path("packed"));
    Put(image.name, bytes);
    return bytes;
  }

  // Opens the damaged image; if that works, QEMU must see the same unless it
  // refuses the image.
  void Check(std::span<const std::byte> damaged, bool ask_qemu) {
    Put("disk.qcow2", damaged);
    const auto start = std::chrono::steady_clock::now();
    const Outcome outcome = Attempt("disk.qcow2", kLimit);
    EXPECT_LT(std::chrono::steady_clock::now() - start,
              std::chrono::seconds(10));
    if (outcome.error) {
      EXPECT_NE(outcome.text, "");
      return;
    }
    if (!ask_qemu || outcome.content.size() >= kLimit) return;
    Bytes expected;
    try {
      expected = images_.Content("disk.qcow2");
    } catch (const std::runtime_error&) {
      return;
    }
    // QEMU counts whole sectors only.
    Bytes found = outcome.content;
    EXPECT_EQ(found.size() / 512, expected.size() / 512);
    const size_t common = std::min(found.size(), expected.size());
    found.resize(common);
    expected.resize(common);
    EXPECT_EQ(FirstDifference(found, expected), "");
  }

  // What a reader of the image goes by.
  std::vector<uint64_t> MetadataBytes(const Bytes& image) {
    std::vector<uint64_t> places;
    const auto add = [&](uint64_t from, uint64_t length) {
      for (uint64_t at = from; at < from + length && at < image.size(); ++at) {
        places.push_back(at);
      }
    };
    add(0, 600);
    add(L1TableOffset(image), 64);
    add(FirstL2Entry(image), 256);
    if (GetParam().encryption == "luks") {
      const uint64_t luks =
          LoadNumber(image, ExtensionOffset(image, 0x0537be77) + 8, 8);
      add(luks, 300);
      add(luks, 300);  // Twice as likely.
    }
    return places;
  }
};

TEST_P(MutatedImageTest, CutOffAtEveryInterestingLength) {
  const Bytes image = MakeKind();
  std::set<uint64_t> lengths = {0,   3,   4,   8,   24,  71,  72,  103, 104,
                                105, 111, 112, 200, 400, 511, 512, 513};
  const uint64_t tables[] = {L1TableOffset(image), LoadNumber(image, 48, 8),
                             L2TableOffset(image), FirstL2Entry(image)};
  for (const uint64_t table : tables) {
    lengths.insert({table - 1, table, table + 1, table + 7, table + 8,
                    table + GetParam().cluster_size - 1});
  }
  std::mt19937_64 random(1);
  for (int i = 0; i < 10; ++i) lengths.insert(random() % image.size());
  lengths.insert(image.size() - 1);
  for (const uint64_t length : lengths) {
    if (length >= image.size()) continue;
    SCOPED_TRACE(length);
    Check(std::span(image).first(length), true);
  }
}

TEST_P(MutatedImageTest, RandomBytesInTheMetadata) {
  const Bytes image = MakeKind();
  const std::vector<uint64_t> places = MetadataBytes(image);
  std::mt19937_64 random(GetParam().cluster_size);
  // A changed iteration count can make a key derivation long.
  const int rounds = GetParam().encryption == "luks" ? 120 : 300;
  for (int i = 0; i < rounds; ++i) {
    Bytes damaged = image;
    std::string changes;
    for (uint64_t n = 0; n <= random() % 3; ++n) {
      const uint64_t at = places[random() % places.size()];
      const auto value = static_cast<std::byte>(
          random() % 2 == 0 ? random() % 256
                            : LoadNumber(image, at, 1) ^ 1U << random() % 8);
      damaged[at] = value;
      changes += std::to_string(at) + " ";
    }
    SCOPED_TRACE("round " + std::to_string(i) + ", bytes " + changes);
    Check(damaged, i % 3 == 0);
    if (HasFailure()) return;
  }
}

const Kind kKinds[] = {
    {.name = "Clusters512", .cluster_size = 512, .encryption = "none"},
    {.name = "Clusters64K", .cluster_size = 65536, .encryption = "none"},
    {.name = "Extended",
     .cluster_size = 16384,
     .encryption = "none",
     .extended_l2 = true},
    {.name = "Compressed",
     .cluster_size = 4096,
     .encryption = "none",
     .compressed = true},
    {.name = "Zstd",
     .cluster_size = 4096,
     .encryption = "none",
     .compressed = true,
     .option = "compression_type=zstd"},
    {.name = "DataFile",
     .cluster_size = 4096,
     .encryption = "none",
     .option = "data_file"},
    {.name = "Backing",
     .cluster_size = 4096,
     .encryption = "none",
     .has_backing = true},
    {.name = "Version2",
     .cluster_size = 4096,
     .encryption = "none",
     .version2 = true},
    {.name = "Luks", .cluster_size = 4096, .encryption = "luks"},
    {.name = "Aes", .cluster_size = 4096, .encryption = "aes"}};

INSTANTIATE_TEST_SUITE_P(Kinds, MutatedImageTest, ::testing::ValuesIn(kKinds),
                         [](const ::testing::TestParamInfo<Kind>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace pellucid
