#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "engine/writable_file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/tools/interval_device.h"
#include "tools/export_target.h"
#include "tools/manifest_check.h"
#include "tools/manifest_reader.h"
#include "tools/manifest_writer.h"
#include "tools/plaintext_copy.h"

namespace pellucid::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::SizeIs;

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::string ToText(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::string> SplitLines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// Stored, unlike the holes of an IntervalDevice, whatever it is.
class StoredBytes : public BlockDevice {
 public:
  explicit StoredBytes(Bytes bytes) : bytes_(std::move(bytes)) {}
  uint64_t size() const override { return bytes_.size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), out.size(),
                out.begin());
  }
  Extent ExtentAt(uint64_t /*offset*/, uint64_t max_length) override {
    return {.length = max_length, .is_hole = false};
  }

 private:
  const Bytes bytes_;
};

class ManifestTest : public testing::Test {
 protected:
  ManifestHeader Header(BlockDevice& device, ByteRange range,
                        uint64_t chunk_size) {
    ManifestHeader header;
    header.image = "disk";
    header.image_size = device.size();
    header.offset = range.offset;
    header.size = range.length;
    header.chunk_size = chunk_size;
    header.algorithms = {"sha256", "md5"};
    return header;
  }

  // Writes the manifest of a copy, and returns its text.
  std::string Write(BlockDevice& device, ByteRange range, uint64_t chunk_size,
                    unsigned threads = 3) {
    std::filesystem::remove(folder_ / "manifest");
    const auto file = WritableFileDevice::Create(folder_ / "manifest");
    ExportTarget target({.path = folder_ / "copy", .overwrite = true},
                        range.length, {});
    ManifestWriter writer(*file, Header(device, range, chunk_size));
    PlaintextCopy(device, range, target, 0,
                  {.hashes = nullptr, .manifest = &writer})
        .Run(threads, [](Progress) {});
    writer.Finish({});
    target.Finish();
    return ToText(ReadHostFile(folder_ / "manifest"));
  }

  std::vector<ByteRange> Check(BlockDevice& copy, uint64_t offset = 0,
                               bool find_all = true) {
    ManifestReader reader(folder_ / "manifest");
    return ManifestCheck(reader, copy, offset, find_all).Run(3, [](Progress) {
    });
  }

  // The manifest with a right checksum, whatever its lines say.
  void Store(const std::vector<std::string>& lines) {
    std::string text;
    for (size_t i = 0; i + 1 < lines.size(); ++i) text += lines[i] + '\n';
    json last = json::parse(lines.back(), nullptr, false);
    if (last.is_object()) {
      last["manifest_sha256"] = Sha256(std::as_bytes(std::span(text)));
    }
    WriteHostFile(
        folder_ / "manifest",
        text + (last.is_object() ? last.dump() : lines.back()) + '\n');
  }

  // What reading all of it says; empty if nothing is wrong.
  std::string ErrorOfReading() {
    try {
      ManifestReader reader(folder_ / "manifest");
      while (!reader.Next(kMiB).empty()) {
      }
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  ScratchFolder folder_;
};

TEST_F(ManifestTest, EveryChunkHasItsHashAndZerosHaveNone) {
  IntervalDevice device(10 * kMiB + 5);
  device.AddData(2 * kMiB + 7, 4 * kMiB + 1);
  device.AddData(10 * kMiB + 1, 10 * kMiB + 5);
  const std::string text =
      Write(device, {.offset = 0, .length = device.size()}, kMiB);
  const std::vector<std::string> lines = SplitLines(text);
  ASSERT_THAT(lines, SizeIs(8));
  const json first = json::parse(lines[0]);
  EXPECT_EQ(first["pellucid_manifest"], 1);
  EXPECT_EQ(first["pellucid"], PELLUCID_VERSION);
  EXPECT_EQ(first["image"], "disk");
  EXPECT_EQ(first["size"], device.size());
  EXPECT_EQ(first["chunk_size"], kMiB);
  EXPECT_EQ(first["algorithms"], json({"sha256", "md5"}));
  EXPECT_EQ(json::parse(lines[1]),
            (json{{"offset", 0}, {"length", 2 * kMiB}, {"zeros", true}}));
  for (uint64_t i = 2; i < 5; ++i) {
    const json line = json::parse(lines[i]);
    EXPECT_EQ(line["offset"], i * kMiB);
    EXPECT_EQ(line["sha256"], Sha256(device.Content(i * kMiB, kMiB)));
    EXPECT_EQ(line["md5"].get<std::string>().size(), 32u);
  }
  EXPECT_EQ(
      json::parse(lines[5]),
      (json{{"offset", 5 * kMiB}, {"length", 5 * kMiB}, {"zeros", true}}));
  EXPECT_EQ(json::parse(lines[6])["sha256"],
            Sha256(device.Content(10 * kMiB, 5)));
  const json last = json::parse(lines[7]);
  EXPECT_EQ(last["chunks"], 11);
  EXPECT_EQ(last["bytes"], device.size());
  EXPECT_EQ(last["zero_bytes"], 7 * kMiB);
  const std::string before = text.substr(0, text.size() - lines[7].size() - 1);
  EXPECT_EQ(last["manifest_sha256"], Sha256(std::as_bytes(std::span(before))));
}

TEST_F(ManifestTest, ItDependsOnTheBytesOnly) {
  constexpr uint64_t kSize = 5 * kMiB + 12345;
  IntervalDevice sparse(kSize);
  sparse.AddData(100, 5000);
  sparse.AddData(kMiB / 2, kMiB + 1);
  sparse.AddData(3 * kMiB + 4096, 4 * kMiB);
  StoredBytes stored(sparse.Content(0, kSize));
  for (const uint64_t chunk_size :
       {uint64_t{4096}, uint64_t{12288}, kMiB, 3 * kMiB}) {
    for (const ByteRange range :
         {ByteRange{.offset = 0, .length = kSize},
          ByteRange{.offset = 777, .length = kSize - 1000}}) {
      const auto chunks = [&](BlockDevice& device, unsigned threads) {
        std::string text = Write(device, range, chunk_size, threads);
        return text.substr(text.find('\n'),
                           text.find("\"manifest_sha256") - text.find('\n'));
      };
      const std::string expected = chunks(stored, 1);
      EXPECT_EQ(chunks(stored, 7), expected);
      EXPECT_EQ(chunks(sparse, 1), expected);
      EXPECT_EQ(chunks(sparse, 7), expected);
      EXPECT_EQ(Check(sparse, range.offset).size(), 0u);
      EXPECT_EQ(Check(stored, range.offset).size(), 0u);
    }
  }
}

TEST_F(ManifestTest, AnEmptyTebibyteTakesNoTime) {
  constexpr uint64_t kSize = uint64_t{8} << 40;
  IntervalDevice device(kSize);
  device.AddData(kSize / 2, kSize / 2 + 1);
  const std::string text = Write(device, {.offset = 0, .length = kSize}, kMiB);
  EXPECT_THAT(SplitLines(text), SizeIs(5));
  EXPECT_TRUE(Check(device).empty());
  // Once each.
  EXPECT_LE(device.bytes_read(), 2 * kMiB);
}

TEST_F(ManifestTest, ChangesAreFoundToTheChunk) {
  constexpr uint64_t kSize = 700 * kMiB;  // More zeros than are read at a time.
  IntervalDevice device(kSize);
  device.AddData(100 * kMiB, 103 * kMiB);
  Write(device, {.offset = 0, .length = kSize}, kMiB);
  const auto differences = [&](std::vector<uint64_t> changes, bool find_all) {
    IntervalDevice copy(kSize);
    copy.AddData(100 * kMiB, 103 * kMiB);
    for (const uint64_t change : changes) copy.AddData(change, change + 1);
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (const ByteRange& range : Check(copy, 0, find_all)) {
      ranges.emplace_back(range.offset, range.length);
    }
    return ranges;
  };
  using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;
  EXPECT_EQ(differences({}, true), Ranges());
  EXPECT_EQ(differences({0}, true), (Ranges{{0, kMiB}}));
  EXPECT_EQ(differences({kSize - 1}, true), (Ranges{{kSize - kMiB, kMiB}}));
  EXPECT_EQ(differences({5 * kMiB, 6 * kMiB, 400 * kMiB + 9}, true),
            (Ranges{{5 * kMiB, 2 * kMiB}, {400 * kMiB, kMiB}}));
  // The first of them, however many threads are at work.
  for (int round = 0; round < 20; ++round) {
    EXPECT_EQ(differences({99 * kMiB + 3, 104 * kMiB, 300 * kMiB}, false),
              (Ranges{{99 * kMiB, kMiB}}));
  }
}

// Tells of its first extent only when what lies behind 100 MiB was looked at.
class LateBeginning : public IntervalDevice {
 public:
  using IntervalDevice::IntervalDevice;

  void Read(uint64_t offset, std::span<std::byte> out) override {
    IntervalDevice::Read(offset, out);
    if (offset > 100 * kMiB) later_was_read_ = true;
  }
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    for (int i = 0; i < 1000 && offset == 0 && !later_was_read_; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    if (offset == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return IntervalDevice::ExtentAt(offset, max_length);
  }

 private:
  std::atomic<bool> later_was_read_ = false;
};

TEST_F(ManifestTest, TheFirstDifferenceIsNotTheFirstThatIsFound) {
  IntervalDevice device(110 * kMiB);
  device.AddData(100 * kMiB, 103 * kMiB);
  Write(device, {.offset = 0, .length = device.size()}, kMiB);
  LateBeginning copy(device.size());
  copy.AddData(99 * kMiB, 99 * kMiB + 1);
  copy.AddData(100 * kMiB, 101 * kMiB);
  const std::vector<ByteRange> ranges = Check(copy, 0, false);
  ASSERT_THAT(ranges, SizeIs(1));
  EXPECT_EQ(ranges[0].offset, 99 * kMiB);
}

TEST_F(ManifestTest, DataThatChangedToZerosOrOtherDataIsFound) {
  StoredBytes device(Noise(3 * kMiB, 1));
  Write(device, {.offset = 0, .length = 3 * kMiB}, 65536);
  for (const uint64_t at : {uint64_t{0}, kMiB + 65535, 3 * kMiB - 1}) {
    Bytes changed = Noise(3 * kMiB, 1);
    changed[at] ^= std::byte{1};
    StoredBytes copy(changed);
    const std::vector<ByteRange> ranges = Check(copy);
    ASSERT_THAT(ranges, SizeIs(1));
    EXPECT_EQ(ranges[0].offset, at / 65536 * 65536);
    EXPECT_EQ(ranges[0].length, 65536u);
  }
  IntervalDevice empty(3 * kMiB);
  EXPECT_EQ(Check(empty)[0].length, 3 * kMiB);
}

TEST_F(ManifestTest, EveryDamagedByteIsFound) {
  IntervalDevice device(kMiB);
  device.AddData(70000, 200000);
  const std::string text = Write(device, {.offset = 0, .length = kMiB}, 65536);
  EXPECT_EQ(ErrorOfReading(), "");
  const size_t last_line = text.rfind('\n', text.size() - 2) + 1;
  for (size_t at = 0; at < last_line; ++at) {
    std::string damaged = text;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    WriteHostFile(folder_ / "manifest", damaged);
    EXPECT_THAT(ErrorOfReading(), HasSubstr("manifest")) << at;
  }
}

TEST_F(ManifestTest, EveryCutOffManifestIsRefused) {
  IntervalDevice device(kMiB);
  device.AddData(70000, 200000);
  const std::string text = Write(device, {.offset = 0, .length = kMiB}, 65536);
  for (size_t length = 0; length < text.size(); ++length) {
    WriteHostFile(folder_ / "manifest", text.substr(0, length));
    EXPECT_THAT(ErrorOfReading(), HasSubstr("manifest")) << length;
  }
}

TEST_F(ManifestTest, HostileLinesAreNamed) {
  IntervalDevice device(kMiB);
  device.AddData(65536, 3 * 65536);
  const std::vector<std::string> good =
      SplitLines(Write(device, {.offset = 0, .length = kMiB}, 65536));
  ASSERT_THAT(good, SizeIs(6));
  Store(good);
  ASSERT_EQ(ErrorOfReading(), "");

  struct Case {
    size_t line;
    std::function<void(json&)> change;
    std::string message;
  };
  const std::vector<Case> cases = {
      {0, [](json& l) { l["pellucid_manifest"] = 2; }, "version 2"},
      {0, [](json& l) { l["pellucid_manifest"] = "1"; }, "version"},
      {0, [](json& l) { l.erase("pellucid_manifest"); }, "pellucid_manifest"},
      {0, [](json& l) { l["size"] = -1; }, "field size of line 1"},
      {0, [](json& l) { l["size"] = 1e30; }, "field size of line 1"},
      {0, [](json& l) { l["offset"] = UINT64_MAX; }, "image_size"},
      {0, [](json& l) { l["image_size"] = 5; }, "image_size"},
      {0, [](json& l) { l["chunk_size"] = 0; }, "chunk_size"},
      {0, [](json& l) { l["chunk_size"] = uint64_t{1} << 40; }, "chunk_size"},
      {0, [](json& l) { l["chunk_size"] = 5000; }, "chunk_size"},
      {0, [](json& l) { l["algorithms"] = json::array(); }, "algorithms"},
      {0, [](json& l) { l["algorithms"] = {1}; }, "algorithms"},
      {0, [](json& l) { l["algorithms"] = {"crc32"}; }, "crc32"},
      {0, [](json& l) { l["algorithms"] = json(9, "md5"); }, "algorithms"},
      {1, [](json& l) { l["offset"] = 65536; }, "line 2"},
      {1, [](json& l) { l["length"] = 0; }, "line 2"},
      {1, [](json& l) { l["length"] = UINT64_MAX; }, "line 2"},
      {1, [](json& l) { l["length"] = 65535; }, "line 2"},
      {1, [](json& l) { l["zeros"] = false; }, "zeros of line 2"},
      {1, [](json& l) { l.erase("zeros"); }, "sha256 of line 2"},
      {2, [](json& l) { l["sha256"] = "00"; }, "sha256 of line 3"},
      {2, [](json& l) { l["md5"] = std::string(32, 'g'); }, "md5 of line 3"},
      {2, [](json& l) { l.erase("md5"); }, "md5 of line 3"},
      {2, [](json& l) { l["length"] = 2 * 65536; }, "line 3"},
      {2, [](json& l) { l["offset"] = "x"; }, "offset of line 3"},
      {2, [](json& l) { l = json::array(); }, "line 3 is no object"},
      {2, [](json& l) { l["junk"] = std::string(70000, 'x'); }, "line 3"},
      {5, [](json& l) { l["chunks"] = 15; }, "15 chunks"},
      {5, [](json& l) { l["zero_bytes"] = 0; }, "bytes of zeros"},
      {5, [](json& l) { l["bytes"] = 1; }, "bytes of the last line"},
      {5, [](json& l) { l.erase("chunks"); }, "chunks of the last line"},
  };
  for (const Case& c : cases) {
    std::vector<std::string> lines = good;
    json line = json::parse(lines[c.line]);
    c.change(line);
    lines[c.line] = line.dump();
    Store(lines);
    EXPECT_THAT(ErrorOfReading(), HasSubstr(c.message)) << lines[c.line];
  }

  std::vector<std::string> lines = good;
  lines.erase(lines.begin() + 4);
  Store(lines);
  EXPECT_THAT(ErrorOfReading(), HasSubstr("its chunks end at byte"));
  lines = good;
  std::swap(lines[2], lines[3]);
  Store(lines);
  EXPECT_THAT(ErrorOfReading(), HasSubstr("line 3"));
  lines = good;
  lines[2] = std::string(50000, '[');
  Store(lines);
  EXPECT_THAT(ErrorOfReading(), HasSubstr("line 3 is no object"));
  lines = good;
  lines[0] = "\xff\xfe";
  Store(lines);
  EXPECT_THAT(ErrorOfReading(), HasSubstr("line 1"));
}

}  // namespace
}  // namespace pellucid::cli
