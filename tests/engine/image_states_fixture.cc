#include "tests/engine/image_states_fixture.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/errors.h"
#include "engine/qcow2/image_check.h"
#include "engine/qcow2/snapshots.h"
#include "tests/engine/crash_judge.h"
#include "tests/engine/crash_points.h"

namespace pellucid {
namespace {

constexpr const char* kName = "disk.qcow2";

qcow2::ImageCheck Check(std::span<const std::byte> file) {
  BorrowedDisk disk(file);
  return qcow2::CheckImage(disk, kName, qcow2::ReadHeader(disk, kName));
}

// Nothing that is in use may look free to a writer.
std::string GoOn(const ImageInMemory& image, const CrashPoint& point,
                 const ImageStates& states) {
  std::vector<Bytes> files;
  for (const auto& disk : point.disks) {
    files.emplace_back(disk.begin(), disk.end());
  }
  CrashDisks disks(files);
  disks.StopRecording();
  ImageStates expected = states;
  {
    SyncedModel model(states.at(""));
    ModelledImage writer(image, disks, model);
    std::mt19937_64 random(point.position);
    for (int i = 0; i < 40; ++i) {
      const uint64_t at = random() % (writer.sectors() - 20);
      writer.Write(at, 1 + random() % 20);
    }
    writer.Flush();
    expected[""] = writer.Content();
    const std::string wrong = model.CheckNow(expected[""]);
    if (!wrong.empty()) return wrong;
  }
  if (!Check(disks.contents()[0]).is_sound()) return "a writer damages it";
  return DifferenceOf(StatesOf(image, Spans(disks.contents())), expected);
}

ChangedImage Variant(const std::string& name, uint64_t cluster_size,
                     uint64_t size, std::vector<std::string> options = {},
                     const std::string& encryption = "none") {
  ChangedImage changed;
  changed.name = name;
  changed.image.name = kName;
  changed.image.encryption = encryption;
  changed.image.cluster_size = cluster_size;
  changed.image.virtual_size = size;
  changed.image.more_options = std::move(options);
  return changed;
}

}  // namespace

void PrintTo(const ChangedImage& image, std::ostream* out) {
  *out << image.name;
}

ImageStates StatesOf(const ImageInMemory& image,
                     const std::vector<std::span<const std::byte>>& files) {
  BorrowedDisk file(files[0]);
  ImageStates states;
  states[""] = ReadAll(*image.OpenReadOnly(files));
  for (const qcow2::Snapshot& snapshot :
       qcow2::ReadSnapshots(file, kName, qcow2::ReadHeader(file, kName))) {
    states[snapshot.info.name] =
        ReadAll(*image.OpenReadOnly(files, snapshot.info.name));
  }
  return states;
}

std::string DifferenceOf(const ImageStates& found,
                         const ImageStates& expected) {
  for (const auto& [name, content] : expected) {
    if (!found.contains(name)) return fmt::format("\"{}\" is missing", name);
    if (found.at(name) != content) {
      return fmt::format("\"{}\": {}", name,
                         FirstDifference(found.at(name), content));
    }
  }
  return found.size() == expected.size() ? "" : "there are more states";
}

std::vector<ChangedImage> ChangedImages() {
  constexpr uint64_t kSmall = (256 << 10) + 512;
  constexpr uint64_t kMiddle = (1 << 20) + 1536;
  std::vector<ChangedImage> images = {
      Variant("Clusters512", 512, kSmall),
      Variant("Clusters4k", 4096, kMiddle),
      Variant("Clusters64k", 65536, kMiddle),
      Variant("Clusters2M", 2 << 20, kMiddle),
      Variant("Refcounts4", 4096, kSmall, {"refcount_bits=4"}),
      Variant("Refcounts8", 512, kSmall, {"refcount_bits=8"}),
      Variant("Refcounts32", 4096, kSmall, {"refcount_bits=32"}),
      // The refcount table is full at 2 MiB.
      Variant("Refcounts64", 512, 1843200, {"refcount_bits=64"}),
      Variant("LazyRefcounts", 4096, kSmall, {"lazy_refcounts=on"}),
      Variant("EmbeddedLuks", 4096, kMiddle, {}, "luks"),
      Variant("LegacyAes", 4096, kMiddle, {}, "aes"),
      Variant("Version2", 4096, kMiddle),
      Variant("ExtendedL2", 16384, kMiddle),
      Variant("OverBacking", 4096, kMiddle),
      Variant("Compressed", 4096, kMiddle),
  };
  for (ChangedImage& image : images) {
    if (image.name == "Version2") image.image.version2 = true;
    if (image.name == "ExtendedL2") image.image.extended_l2 = true;
    if (image.name == "OverBacking") image.base_size = 2 * kMiddle + 512;
    if (image.name == "Compressed") image.has_compressed = true;
  }
  return images;
}

void Make(const ChangedImage& changed, QemuImages& images) {
  QemuImage image = changed.image;
  const uint64_t size = image.virtual_size;
  if (changed.base_size != 0) {
    images.Create({.name = "base.qcow2",
                   .encryption = "none",
                   .virtual_size = changed.base_size,
                   .more_options = {},
                   .backing = ""});
    images.Write("base.qcow2",
                 ScatteredWrites(images, changed.base_size, 65536, 30, 4));
    images.Write("base.qcow2", {fmt::format("write -q -P 77 {} {}", size - 512,
                                            changed.base_size - size + 512)});
    image.backing = "base.qcow2";
  }
  images.Create(image);
  if (changed.has_compressed) {
    std::vector<std::string> commands;
    for (uint64_t at = 0; at + image.cluster_size < size;
         at += (1 + at / 4096 % 3) * image.cluster_size) {
      commands.push_back(fmt::format("write -q -c -P {} {} {}", at % 250 + 1,
                                     at, image.cluster_size));
    }
    images.Write(image.name, commands);
  }
  images.Write(image.name,
               ScatteredWrites(images, size, image.cluster_size, 25, 8));
  // Up to the very end, where it stops within a cluster.
  images.Write(image.name, {fmt::format("write -q -P 99 {} 2048", size - 2048),
                            fmt::format("write -q -P 98 {} 40k", size / 2)});
  for (int i = 0; changed.has_snapshots && i < 2; ++i) {
    TakeSnapshot(images, image.name, fmt::format("q{}", i));
    images.Write(image.name, ScatteredWrites(images, size, image.cluster_size,
                                             6, 9 + static_cast<unsigned>(i)));
  }
}

ImageInMemory InMemory(const ChangedImage& image, const QemuImages& images) {
  return ImageInMemory(images, kName, image.base_size != 0 ? "base.qcow2" : "");
}

void ExpectFlawless(const ImageInMemory& image,
                    const std::vector<Bytes>& files) {
  const qcow2::ImageCheck check = Check(files[0]);
  EXPECT_TRUE(check.is_sound()) << testing::PrintToString(check.texts());
  EXPECT_EQ(check.leaks, 0U);
  EXPECT_EQ(check.leaks_behind_end, 0U);
  image.Store(Spans(files));
  EXPECT_EQ(QemuCheck(image.OpenArguments(), /*leaks_allowed=*/false), "");
}

void ExpectAtomic(const ImageInMemory& image,
                  const std::function<void(CrashDisks& disks)>& change,
                  const ImageStates& after) {
  const ImageStates before = StatesOf(image, Spans(image.files()));
  CrashDisks disks(image.files());
  change(disks);
  ASSERT_EQ(DifferenceOf(StatesOf(image, Spans(disks.contents())), after), "");
  ExpectFlawless(image, disks.contents());

  uint64_t until_next = 0;
  uint64_t with_before = 0;
  uint64_t with_after = 0;
  bool failed = false;
  ForEachCrashPoint(disks, 3, 5, [&](const CrashPoint& point) {
    if (failed) return;
    std::string wrong;
    try {
      const qcow2::ImageCheck check = Check(point.disks[0]);
      if (!check.is_sound()) wrong = testing::PrintToString(check.texts());
      const ImageStates found = StatesOf(image, point.disks);
      const bool is_after = DifferenceOf(found, after).empty();
      if (!is_after && wrong.empty()) wrong = DifferenceOf(found, before);
      ++(is_after ? with_after : with_before);
      if (wrong.empty() && until_next-- == 0) {
        until_next = 15;
        wrong = GoOn(image, point, is_after ? after : before);
      }
    } catch (const Error& error) {
      wrong = error.what();
    }
    if (wrong.empty()) return;
    ADD_FAILURE() << point.description << ": " << wrong;
    failed = true;
  });
  if (failed) return;
  EXPECT_GT(with_before, 1U);
  EXPECT_GT(with_after, 1U);
}

}  // namespace pellucid
