#include "engine/named_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/errors.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

using testing::HasSubstr;

constexpr const char* kImage = "/images/disk.qcow2";

std::string PathOf(const std::string& name, const char* image = kImage) {
  return ResolveNamedFile(name, "", image).path;
}
std::string FormatOf(const std::string& name, const std::string& format) {
  return ResolveNamedFile(name, format, kImage).format;
}
std::string Refused(const std::string& name, const std::string& format = "") {
  return ThrownText<Unsupported>(
      [&] { ResolveNamedFile(name, format, kImage); });
}
std::string Corrupt(const std::string& name) {
  return ThrownText<CorruptImage>([&] { ResolveNamedFile(name, "", kImage); });
}

TEST(NamedFileTest, RelativeNamesStartAtTheFolderOfTheImage) {
  EXPECT_EQ(PathOf("base.raw"), "/images/base.raw");
  EXPECT_EQ(PathOf("sub/base.raw"), "/images/sub/base.raw");
  EXPECT_EQ(PathOf("../base.raw"), "/images/../base.raw");
  EXPECT_EQ(PathOf("base.raw", "disk.qcow2"), "base.raw");
  EXPECT_EQ(PathOf("base.raw", "here/disk.qcow2"), "here/base.raw");
}

TEST(NamedFileTest, AbsoluteNamesStayAsTheyAre) {
  EXPECT_EQ(PathOf("/srv/base.raw"), "/srv/base.raw");
}

TEST(NamedFileTest, FileProtocolIsAPath) {
  EXPECT_EQ(PathOf("file:base.raw"), "/images/base.raw");
  EXPECT_EQ(PathOf("file:/srv/base.raw"), "/srv/base.raw");
  // Whatever else stands in it: this is how a name with a colon is spelled.
  EXPECT_EQ(PathOf("file:a:b.raw"), "/images/a:b.raw");
}

TEST(NamedFileTest, WordAndColonInFrontOfAnySlashIsAProtocol) {
  for (const char* name :
       {"nbd://host/export", "nbd:unix:/run/socket", "rbd:pool/image",
        "https://host/disk", "fat:rw:/etc", "a:b", "vvfat:x"}) {
    const std::string text = Refused(name);
    EXPECT_THAT(text, HasSubstr("/images/disk.qcow2: "));
    EXPECT_THAT(text, HasSubstr(name));
    EXPECT_THAT(text, HasSubstr("only local files"));
    const std::string protocol(name, std::string(name).find(':'));
    EXPECT_THAT(text, HasSubstr("\"" + protocol + "\" is not supported"));
  }
  EXPECT_EQ(PathOf("sub/a:b"), "/images/sub/a:b");
  EXPECT_EQ(PathOf("./a:b"), "/images/./a:b");
}

TEST(NamedFileTest, FormatIsWhatTheImageSays) {
  EXPECT_EQ(FormatOf("base", ""), "");
  EXPECT_EQ(FormatOf("base", "qcow2"), "qcow2");
  EXPECT_EQ(FormatOf("base", "raw"), "raw");
  EXPECT_EQ(FormatOf("base", "luks"), "luks");
  EXPECT_EQ(FormatOf("base", "host_device"), "raw");
  EXPECT_EQ(FormatOf("base", "file"), "raw");
}

TEST(NamedFileTest, OtherFormatsAreRefusedByName) {
  for (const char* format : {"vmdk", "qcow", "vdi", "QCOW2", "raw "}) {
    EXPECT_THAT(Refused("base", format),
                HasSubstr(std::string("format \"") + format + "\""));
  }
}

TEST(NamedFileTest, JsonNameMayBeFlatOrNested) {
  for (const char* name :
       {R"(json:{"driver":"qcow2","file.driver":"file","file.filename":"b"})",
        R"(json:{"driver":"qcow2","file":{"driver":"file","filename":"b"}})",
        R"(json:{"driver":"qcow2","file":{"filename":"b"}})"}) {
    EXPECT_EQ(PathOf(name), "/images/b") << name;
    EXPECT_EQ(FormatOf(name, "raw"), "qcow2") << name;
  }
}

TEST(NamedFileTest, JsonOfTheFileItselfKeepsTheFormatOfTheImage) {
  const std::string name = R"(json:{"driver":"file","filename":"/srv/b"})";
  EXPECT_EQ(PathOf(name), "/srv/b");
  EXPECT_EQ(FormatOf(name, "qcow2"), "qcow2");
}

TEST(NamedFileTest, JsonOfNoLocalFileIsRefused) {
  for (const char* name :
       {R"(json:{"driver":"nbd","host":"h"})",
        R"(json:{"driver":"qcow2","file":{"driver":"nbd","host":"h"}})",
        R"(json:{"driver":"raw","file":{"driver":"https","filename":"f"}})",
        R"(json:{"file.driver":"ssh","file.filename":"f"})", R"(json:{})",
        R"(json:{"driver":"qcow2","file":{"driver":"raw","file":{}}})",
        R"(json:{"driver":"qcow2","file":["filename"]})"}) {
    EXPECT_THAT(Refused(name), HasSubstr("only local files")) << name;
  }
  EXPECT_THAT(Refused(R"(json:{"file.driver":"ssh","file.filename":"f"})"),
              HasSubstr("\"ssh\" is not supported"));
  EXPECT_THAT(Refused(R"(json:{"driver":"nbd","host":"h"})"),
              HasSubstr("\"nbd\" is not supported"));
}

TEST(NamedFileTest, JsonOptionsThatChangeWhatIsReadAreRefused) {
  for (const char* option :
       {R"("offset":65536)", R"("size":512)", R"("backing":null)",
        R"("backing":"node")", R"("backing.file.filename":"x")",
        R"("data-file.filename":"x")"}) {
    const std::string name = std::string(R"(json:{"driver":"raw",)") + option +
                             R"(,"file":{"driver":"file","filename":"b"}})";
    EXPECT_THAT(Refused(name), HasSubstr("option")) << name;
  }
}

TEST(NamedFileTest, JsonOptionsThatOnlySayHowToReadAreIgnored) {
  EXPECT_EQ(PathOf(R"(json:{"driver":"qcow2","read-only":true,"file":)"
                   R"({"driver":"file","filename":"b","locking":"off",)"
                   R"("aio":"threads"},"lazy-refcounts":"on"})"),
            "/images/b");
}

TEST(NamedFileTest, TextThatIsNoJsonIsCorrupt) {
  for (const char* name :
       {"json:", "json:{", "json:[]", "json:1", "json:\"x\"", "json:null",
        "json:{\"driver\":1}", "json:{\"file.filename\":{}}",
        "json:{\"file\":{\"filename\":[1]}}", "json:{\"driver\":\"\xff\"}",
        "json:{} {}"}) {
    EXPECT_THAT(Corrupt(name), HasSubstr("/images/disk.qcow2: ")) << name;
  }
}

TEST(NamedFileTest, DeeplyNestedJsonDoesNotExhaustTheStack) {
  const std::string open(1 << 20, '[');
  EXPECT_THAT(Corrupt("json:" + open), HasSubstr("not the JSON"));
  const std::string close(1 << 20, ']');
  EXPECT_THAT(Corrupt("json:" + open + close), HasSubstr("not the JSON"));
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"file\":";
  objects += "1" + std::string(100000, '}');
  EXPECT_THAT(Refused("json:" + objects), HasSubstr("only local files"));
}

TEST(NamedFileTest, NulInANameIsRefused) {
  // The host would open what stands in front of it.
  EXPECT_THAT(Corrupt({"a\0b", 3}), HasSubstr("NUL"));
  EXPECT_THAT(Corrupt({"file:a\0b", 8}), HasSubstr("NUL"));
  EXPECT_THAT(Corrupt(R"(json:{"file.filename":"a\u0000b"})"),
              HasSubstr("NUL"));
}

TEST(NamedFileTest, LongNameIsCutInTheMessage) {
  EXPECT_LT(Refused("nbd:" + std::string(1 << 20, 'x')).size(), 4096U);
  EXPECT_LT(Refused("base", std::string(1 << 20, 'x')).size(), 4096U);
}

}  // namespace
}  // namespace pellucid
