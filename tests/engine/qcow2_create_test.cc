// New qcow2 images, judged by qemu-img; and every moment at which making one
// may be cut short.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/luks/format_header.h"
#include "engine/qcow2/create.h"
#include "engine/qcow2/header_encoding.h"
#include "engine/writable_file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::qcow2 {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr std::string_view kPassphrase = "open sesame";

luks::FormatOptions EmbeddedLuks() {
  luks::FormatOptions options;
  options.version = 1;
  options.layout = luks::Layout::kEmbedded;
  options.kdf.type = "pbkdf2";
  options.kdf.iterations = 1000;
  return options;
}

crypto::SecretBytes PassphraseBytes() {
  return crypto::SecretBytes(std::as_bytes(std::span(kPassphrase)));
}

void WriteLuks(WritableDevice& area) {
  luks::FormatHeader(area, EmbeddedLuks(), PassphraseBytes());
}

// Makes images as files and shows them to qemu-img.
class Qcow2CreateTest : public testing::Test {
 protected:
  void Make(const CreateOptions& options) {
    std::filesystem::remove(path_);
    const EmptyImage image(options, path_.native());
    const auto file = WritableFileDevice::Create(path_);
    file->Resize(image.file_bytes());
    image.WriteTo(*file, WriteLuks);
  }

  // What `qemu-img SUBCOMMAND --output=json` says; fails the test if it finds
  // anything wrong.
  json AskQemu(const std::string& subcommand, bool encrypted) {
    const std::string key = encrypted ? ",encrypt.key-secret=s" : "";
    return json::parse(RunTool(
        {"qemu-img", subcommand, "--output=json", "--object",
         fmt::format("secret,id=s,data={}", kPassphrase), "--image-opts",
         fmt::format("driver=qcow2,file.filename={}{}", path_.native(), key)}));
  }

  void ExpectQemuAgrees(const CreateOptions& options) {
    Make(options);
    const bool encrypted = options.crypto_header_bytes != 0;
    const json check = AskQemu("check", encrypted);
    EXPECT_EQ(check.at("check-errors"), 0);
    EXPECT_FALSE(check.contains("leaks")) << check;
    EXPECT_FALSE(check.contains("corruptions")) << check;
    const json info = AskQemu("info", encrypted);
    EXPECT_EQ(info.at("virtual-size"), options.size);
    EXPECT_EQ(info.at("cluster-size"), options.cluster_size);
    EXPECT_EQ(info.value("encrypted", false), encrypted);
    const json& data = info.at("format-specific").at("data");
    EXPECT_EQ(data.at("compat"), options.version == 2 ? "0.10" : "1.1");
    if (options.version >= 3) {
      EXPECT_EQ(data.at("refcount-bits"), options.refcount_bits);
      EXPECT_EQ(data.at("lazy-refcounts"), options.lazy_refcounts);
      EXPECT_EQ(data.at("extended-l2"), options.extended_l2);
      EXPECT_EQ(data.at("corrupt"), false);
    }
    EXPECT_EQ(
        data.at("compression-type"),
        options.compression_type == CompressionType::kZstd ? "zstd" : "zlib");
  }

  ScratchFolder folder_;
  const std::filesystem::path path_ = folder_ / "image.qcow2";
};

class Qcow2CreateShapesTest : public Qcow2CreateTest,
                              public testing::WithParamInterface<uint64_t> {};

// The product of refcount widths, L2 entries and encryption; the other options
// take turns.
TEST_P(Qcow2CreateShapesTest, AreCleanToQemu) {
  unsigned turn = 0;
  for (const unsigned refcount_bits : {1U, 2U, 4U, 8U, 16U, 32U, 64U}) {
    for (const bool extended_l2 : {false, true}) {
      for (const bool encrypted : {false, true}) {
        if (extended_l2 && GetParam() < 16384) continue;
        CreateOptions options;
        options.cluster_size = GetParam();
        options.refcount_bits = refcount_bits;
        options.extended_l2 = extended_l2;
        options.lazy_refcounts = turn % 2 == 1;
        if (turn % 3 == 1) options.compression_type = CompressionType::kZstd;
        constexpr uint64_t kSizes[] = {512, 12345 * 512, uint64_t{3} << 30,
                                       (uint64_t{40} << 30) + 1536};
        options.size = kSizes[turn % std::size(kSizes)];
        if (encrypted) {
          options.crypto_header_bytes = luks::HeaderBytes(EmbeddedLuks());
        }
        ++turn;
        SCOPED_TRACE(fmt::format("{} bits, extended {}, encrypted {}",
                                 refcount_bits, extended_l2, encrypted));
        ASSERT_NO_FATAL_FAILURE(ExpectQemuAgrees(options));
        ASSERT_FALSE(HasFailure());
      }
    }
  }
}

// As large as an L1 table of 32 MiB can be, and one sector more.
TEST_P(Qcow2CreateShapesTest, EndWhereTheL1TableDoes) {
  for (const unsigned refcount_bits : {1U, 64U}) {
    CreateOptions options;
    options.cluster_size = GetParam();
    options.refcount_bits = refcount_bits;
    options.size = kMaxL1Bytes / 8 * (GetParam() / 8 * GetParam());
    ASSERT_NO_FATAL_FAILURE(ExpectQemuAgrees(options));
    // The tables are holes.
    EXPECT_LE(std::stoul(RunTool({"stat", "-c", "%b", path_})) * 512, 1U << 20);
    options.size += 512;
    const std::string text =
        ThrownText<UsageError>([&] { EmptyImage(options, "new.qcow2"); });
    EXPECT_THAT(text, HasSubstr("new.qcow2: "));
    EXPECT_THAT(text, HasSubstr(std::to_string(options.size - 512)));
    EXPECT_EQ(text.find("larger cluster") != std::string::npos,
              GetParam() < 2 << 20)
        << text;
  }
}

INSTANTIATE_TEST_SUITE_P(ClusterSizes, Qcow2CreateShapesTest,
                         testing::Values(512, 1024, 2048, 4096, 8192, 16384,
                                         32768, 65536, 131072, 262144, 524288,
                                         1048576, 2097152),
                         [](const auto& info) {
                           return std::to_string(info.param);
                         });

TEST_F(Qcow2CreateTest, Version2IsCleanToQemu) {
  for (const bool encrypted : {false, true}) {
    for (const uint64_t cluster_size : {512U, 65536U, 2U << 20}) {
      CreateOptions options;
      options.version = 2;
      options.size = uint64_t{5} << 30;
      options.cluster_size = cluster_size;
      if (encrypted) {
        options.crypto_header_bytes = luks::HeaderBytes(EmbeddedLuks());
      }
      ExpectQemuAgrees(options);
    }
  }
}

TEST_F(Qcow2CreateTest, NothingIsAlsoASize) { ExpectQemuAgrees({}); }

TEST_F(Qcow2CreateTest, BackingFilesAreNamed) {
  RunTool({"qemu-img", "create", "-q", "-f", "raw", "base.raw", "1M"}, "",
          folder_.path());
  for (const uint32_t version : {2U, 3U}) {
    CreateOptions options;
    options.version = version;
    options.size = 1 << 20;
    options.cluster_size = 512;
    options.backing_file = "base.raw";
    options.backing_format = "raw";
    ExpectQemuAgrees(options);
    const json info = AskQemu("info", false);
    EXPECT_EQ(info.at("backing-filename"), "base.raw");
    EXPECT_EQ(info.at("backing-filename-format"), "raw");
  }
}

TEST_F(Qcow2CreateTest, NamesThatDoNotFitAreRefused) {
  CreateOptions options;
  options.size = 1 << 20;
  options.backing_format = "raw";
  options.backing_file = std::string(1023, 'b');
  EXPECT_EQ(EmptyImage(options, "x").header().backing_file.size(), 1023U);
  options.backing_file += 'b';
  EXPECT_THAT(ThrownText<UsageError>([&] { EmptyImage(options, "x"); }),
              HasSubstr("1024 bytes, more than the 1023"));
  // 112 bytes of header, 16 of format, 8 of end: 376 are left.
  options.cluster_size = 512;
  options.backing_file = std::string(376, 'b');
  EmptyImage(options, "x");
  options.backing_file += 'b';
  EXPECT_THAT(ThrownText<UsageError>([&] { EmptyImage(options, "x"); }),
              HasSubstr("take 513 bytes, a cluster has 512"));
}

TEST_F(Qcow2CreateTest, ExternalDataFilesAreNamed) {
  RunTool({"truncate", "-s", "1M", folder_ / "image.data"});
  for (const bool raw : {false, true}) {
    CreateOptions options;
    options.size = 1 << 20;
    options.data_file = folder_ / "image.data";
    options.data_file_raw = raw;
    ExpectQemuAgrees(options);
    const json data = AskQemu("info", false).at("format-specific").at("data");
    EXPECT_EQ(data.at("data-file"), options.data_file);
    EXPECT_EQ(data.at("data-file-raw"), raw);
  }
}

TEST_F(Qcow2CreateTest, WhatTheFormatDoesNotAllowIsRefused) {
  struct Refusal {
    const char* text;
    void (*change)(CreateOptions&);
  };
  const Refusal refusals[] = {
      {"version 1 ", [](auto& o) { o.version = 1; }},
      {"version 4 ", [](auto& o) { o.version = 4; }},
      {"cluster size 256 ", [](auto& o) { o.cluster_size = 256; }},
      {"cluster size 0 ", [](auto& o) { o.cluster_size = 0; }},
      {"cluster size 65537 ", [](auto& o) { o.cluster_size = 65537; }},
      {"cluster size 4194304 ", [](auto& o) { o.cluster_size = 4 << 20; }},
      {"cannot have 0 bits", [](auto& o) { o.refcount_bits = 0; }},
      {"cannot have 3 bits", [](auto& o) { o.refcount_bits = 3; }},
      {"cannot have 128 bits", [](auto& o) { o.refcount_bits = 128; }},
      {"16384 bytes (16 KiB) or more, not 8192",
       [](auto& o) {
         o.extended_l2 = true;
         o.cluster_size = 8192;
       }},
      {"multiple of 512", [](auto& o) { o.size = 513; }},
      {"too many", [](auto& o) { o.size = UINT64_MAX - 511; }},
      {"refcounts of other than 16 bits need version 3",
       [](auto& o) {
         o.version = 2;
         o.refcount_bits = 8;
       }},
      {"extended L2 entries need version 3",
       [](auto& o) {
         o.version = 2;
         o.extended_l2 = true;
       }},
      {"lazy refcounts need version 3",
       [](auto& o) {
         o.version = 2;
         o.lazy_refcounts = true;
       }},
      {"zlib need version 3",
       [](auto& o) {
         o.version = 2;
         o.compression_type = CompressionType::kZstd;
       }},
      {"data files need version 3",
       [](auto& o) {
         o.version = 2;
         o.data_file = "data";
       }},
      {"no backing file",
       [](auto& o) {
         o.data_file = "data";
         o.data_file_raw = true;
         o.backing_file = "base";
       }},
  };
  for (const Refusal& refusal : refusals) {
    CreateOptions options;
    refusal.change(options);
    EXPECT_THAT(ThrownText<UsageError>([&] { EmptyImage(options, "x"); }),
                HasSubstr(refusal.text));
  }
}

// Bytes in memory, with everything that was done to them.
class RecordingDevice : public WritableDevice {
 public:
  struct Step {
    uint64_t offset;
    Bytes written;  // Empty: a flush.
  };

  explicit RecordingDevice(Bytes content) : content_(std::move(content)) {}

  uint64_t size() const override { return content_.size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    std::ranges::copy(std::span(content_).subspan(offset, out.size()),
                      out.begin());
  }
  Extent ExtentAt(uint64_t, uint64_t max_length) override {
    return {.length = max_length, .is_hole = false};
  }
  void Write(uint64_t offset, std::span<const std::byte> in) override {
    std::ranges::copy(in, std::span(content_).subspan(offset).begin());
    steps_.push_back({offset, {in.begin(), in.end()}});
  }
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode) override {
    Write(offset, std::vector<std::byte>(length));
  }
  void Flush() override { steps_.push_back({0, {}}); }

  const Bytes& content() const { return content_; }
  const std::vector<Step>& steps() const { return steps_; }

 private:
  Bytes content_;
  std::vector<Step> steps_;
};

class Qcow2CreateCrashTest : public testing::Test {
 protected:
  Qcow2CreateCrashTest() {
    CreateOptions options;
    options.size = 1 << 20;
    options.cluster_size = 4096;
    options.crypto_header_bytes = luks::HeaderBytes(EmbeddedLuks());
    image_.emplace(options, "image");
  }

  std::optional<EmptyImage> image_;
};

TEST_F(Qcow2CreateCrashTest, NothingOpensBeforeTheLastWrite) {
  // An older image is there.
  Bytes old_content(image_->file_bytes(), std::byte{0xee});
  CreateOptions old_options;
  old_options.size = 1 << 20;
  RecordingDevice old_image(std::move(old_content));
  EmptyImage(old_options, "old").WriteTo(old_image, WriteLuks);
  RecordingDevice device(old_image.content());
  ASSERT_TRUE(HasMagic(device.content()));
  image_->WriteTo(device, WriteLuks);

  Bytes content = old_image.content();
  bool any_flush = false;
  const auto& steps = device.steps();
  ASSERT_GE(steps.size(), 5U);
  for (size_t i = 0; i + 2 < steps.size(); ++i) {
    std::ranges::copy(
        steps[i].written,
        content.begin() + static_cast<ptrdiff_t>(steps[i].offset));
    any_flush = any_flush || steps[i].written.empty();
    // The old image may be there until its end is durable, or gone at once.
    if (any_flush) {
      ASSERT_FALSE(HasMagic(content)) << "step " << i;
    }
  }
  // Whatever order the disk chooses: the magic alone follows a flush.
  EXPECT_TRUE(steps[steps.size() - 3].written.empty());
  EXPECT_EQ(steps[steps.size() - 2].written.size(), 4U);
  EXPECT_TRUE(steps[steps.size() - 1].written.empty());
}

TEST_F(Qcow2CreateCrashTest, OldContentDoesNotShine) {
  RecordingDevice device(Bytes(image_->file_bytes(), std::byte{0xee}));
  image_->WriteTo(device, WriteLuks);
  const Header& planned = image_->header();
  const Header header = ReadHeader(device, "image");
  EXPECT_EQ(header.l1_table_offset, planned.l1_table_offset);
  Bytes l1(header.l1_size * 8);
  device.Read(header.l1_table_offset, l1);
  EXPECT_EQ(l1, Bytes(l1.size()));
  Bytes table(header.refcount_table_clusters * header.cluster_size());
  device.Read(header.refcount_table_offset, table);
  EXPECT_EQ(LoadNumber(table, table.size() - 8, 8), 0U);
  // The end of the refcounts stands for clusters that do not exist.
  const uint64_t first_block = LoadNumber(table, 0, 8);
  Bytes block(header.cluster_size());
  device.Read(first_block, block);
  const uint64_t clusters = image_->file_bytes() / header.cluster_size();
  ASSERT_LT(clusters, header.cluster_size() / 2);
  for (uint64_t i = 0; i < header.cluster_size() / 2; ++i) {
    ASSERT_EQ(LoadNumber(block, i * 2, 2), i < clusters ? 1U : 0U) << i;
  }
}

TEST(Qcow2HeaderEncoding, IsReadBack) {
  Header header;
  header.version = 3;
  header.cluster_bits = 16;
  header.size = (uint64_t{7} << 30) + 512;
  header.crypt_method = CryptMethod::kLuks;
  header.l1_size = 29;
  header.l1_table_offset = 0x30000;
  header.refcount_table_offset = 0x10000;
  header.refcount_table_clusters = 1;
  header.incompatible_features = kCompressionType | kExtendedL2;
  header.compatible_features = kLazyRefcounts;
  header.autoclear_features = 0;
  header.refcount_order = 3;
  header.compression_type = CompressionType::kZstd;
  header.backing_file = "base.qcow2";
  header.backing_format = "qcow2";
  header.crypto_header = {.offset = 0x40000, .length = 4711};
  Bytes file = EncodeHeader(header, "image");
  EXPECT_LE(file.size(), header.cluster_size());
  file.resize(0x60000);
  RecordingDevice device(std::move(file));
  const Header read = ReadHeader(device, "image");
  EXPECT_EQ(read.version, 3U);
  EXPECT_EQ(read.cluster_bits, header.cluster_bits);
  EXPECT_EQ(read.size, header.size);
  EXPECT_EQ(read.crypt_method, header.crypt_method);
  EXPECT_EQ(read.l1_size, header.l1_size);
  EXPECT_EQ(read.l1_table_offset, header.l1_table_offset);
  EXPECT_EQ(read.refcount_table_offset, header.refcount_table_offset);
  EXPECT_EQ(read.refcount_table_clusters, header.refcount_table_clusters);
  EXPECT_EQ(read.incompatible_features, header.incompatible_features);
  EXPECT_EQ(read.compatible_features, header.compatible_features);
  EXPECT_EQ(read.refcount_order, header.refcount_order);
  EXPECT_EQ(read.compression_type, header.compression_type);
  EXPECT_EQ(read.backing_file, header.backing_file);
  EXPECT_EQ(read.backing_format, header.backing_format);
  EXPECT_EQ(read.crypto_header->offset, header.crypto_header->offset);
  EXPECT_EQ(read.crypto_header->length, header.crypto_header->length);
  EXPECT_EQ(read.header_length, 112U);
}

}  // namespace
}  // namespace pellucid::qcow2
