#include "tests/engine/manifest_fixture.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

ManifestSecret ParseSecret(const json& secret) {
  ManifestSecret parsed;
  if (secret.contains("passphrase_hex")) {
    parsed.passphrase = FromHex(secret.at("passphrase_hex"));
  } else if (secret.contains("keyfile")) {
    parsed.key_file = secret.at("keyfile");
  } else {
    parsed.passphrase = secret.at("passphrase");
  }
  return parsed;
}

std::optional<ManifestSecret> ParseOptionalSecret(const json& layer) {
  if (!layer.contains("secret")) return std::nullopt;
  return ParseSecret(layer.at("secret"));
}

ContainerFormat ParseFormat(const std::string& format) {
  if (format == "qcow2") return ContainerFormat::kQcow2;
  if (format == "raw") return ContainerFormat::kRaw;
  throw std::runtime_error("manifest: unknown format " + format);
}

ExpectedContent ParseContent(const json& entry) {
  ExpectedContent content;
  content.snapshot_name = entry.value("name", "");
  if (!content.snapshot_name.empty()) content.snapshot_id = entry.at("id");
  content.virtual_size = entry.at("virtual_size");
  content.sha256 = entry.at("plaintext_sha256");
  for (const json& extent : entry.value("extents", json::array())) {
    content.extents.push_back({.offset = extent.at("offset"),
                               .length = extent.at("length"),
                               .sha256 = extent.at("sha256")});
  }
  return content;
}

void ParseOpen(const json& open, RealImage& image) {
  image.image = open.at("image");
  image.format = ParseFormat(open.at("format"));
  image.header = open.value("header", "");
  if (!image.header.empty()) {
    image.header_format = ParseFormat(open.at("header_format"));
  }
  image.encryption = open.at("encryption");
  image.secret = ParseOptionalSecret(open);
  if (open.contains("keyslot")) image.secret->keyslot = open.at("keyslot");
  for (const json& other : open.value("other_secrets", json::array())) {
    ManifestSecret secret = ParseSecret(other.at("secret"));
    secret.keyslot = other.at("keyslot");
    secret.only_if_slot_named = other.value("only_if_slot_named", false);
    image.other_secrets.push_back(secret);
  }
  for (const json& refused : open.value("refused_secrets", json::array())) {
    image.refused_secrets.push_back(ParseSecret(refused));
  }
  for (const json& layer : open.value("backing", json::array())) {
    image.backing.push_back(
        {.file = layer.at("file"), .secret = ParseOptionalSecret(layer)});
  }
}

RealImage ParseCase(const json& entry, const fs::path& folder) {
  RealImage image;
  image.id = entry.at("id");
  image.folder = folder;
  image.files = entry.at("files").get<std::vector<std::string>>();
  ParseOpen(entry.at("open"), image);
  if (entry.contains("expect")) {
    if (entry.at("expect").at("outcome") != "error") {
      throw std::runtime_error(image.id + ": unknown outcome");
    }
    image.must_be_refused = true;
    return image;
  }
  if (entry.contains("compressed_clusters")) {
    image.compressed_clusters = entry.at("compressed_clusters");
  }
  image.active = ParseContent(entry);
  for (const json& snapshot : entry.value("snapshots", json::array())) {
    image.snapshots.push_back(ParseContent(snapshot));
  }
  return image;
}

void AppendCases(const fs::path& folder, const std::set<std::string>& kinds,
                 std::vector<RealImage>& images) {
  std::ifstream file(folder / "manifest.json");
  if (!file) throw std::runtime_error("no manifest in " + folder.native());
  const json manifest = json::parse(file);
  for (const json& entry : manifest.at("cases")) {
    RealImage image = ParseCase(entry, folder);
    const bool known = std::ranges::any_of(
        images, [&](const RealImage& other) { return other.id == image.id; });
    if (!known && kinds.contains(image.encryption)) images.push_back(image);
  }
}

}  // namespace

OpenOptions RealImage::options(const fs::path& unpacked) const {
  OpenOptions options;
  options.image = unpacked / image;
  if (!header.empty()) options.header = unpacked / header;
  options.format = format;
  options.header_format = header_format;
  return options;
}

KnownPassphrases RealImage::Passphrases(
    const fs::path& unpacked, const ManifestSecret& top_secret) const {
  KnownPassphrases passphrases({SecretBytesOf(top_secret, unpacked)});
  for (const BackingLayer& layer : backing) {
    if (!layer.secret) continue;
    passphrases.Add(layer.file, SecretBytesOf(*layer.secret, unpacked));
  }
  return passphrases;
}

std::vector<std::string> RealImage::AllSecrets(const fs::path& unpacked) const {
  std::vector<std::string> all;
  const auto add = [&](const std::optional<ManifestSecret>& one) {
    if (one) all.push_back(SecretBytesOf(*one, unpacked));
  };
  add(secret);
  for (const BackingLayer& layer : backing) add(layer.secret);
  return all;
}

std::string SecretBytesOf(const ManifestSecret& secret,
                          const fs::path& unpacked) {
  if (secret.key_file.empty()) return secret.passphrase;
  const Bytes content = ReadHostFile(unpacked / secret.key_file);
  return std::string(reinterpret_cast<const char*>(content.data()),
                     content.size());
}

std::vector<RealImage> RealImagesOf(const std::set<std::string>& kinds) {
  std::vector<RealImage> images;
  AppendCases(PELLUCID_TEST_IMAGES, kinds, images);
  if (const char* extra = std::getenv("PELLUCID_EXTRA_IMAGES")) {
    AppendCases(extra, kinds, images);
  }
  return images;
}

fs::path Unpack(const RealImage& image) {
  // A manifest that changes gets a folder of its own.
  const std::string version =
      Sha256(ReadHostFile(image.folder / "manifest.json")).substr(0, 12);
  const fs::path unpacked =
      fs::path(PELLUCID_TEST_SCRATCH) / ("images-" + version);
  const bool complete = std::ranges::all_of(
      image.files,
      [&](const std::string& file) { return fs::exists(unpacked / file); });
  if (!complete) {
    RunTool({"python3", PELLUCID_TEST_IMAGES "/unpack.py", "--from",
             image.folder, unpacked, image.id});
  }
  return unpacked;
}

std::string TestName(const RealImage& image) {
  std::string name = image.id;
  std::ranges::replace_if(
      name, [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

void PrintTo(const RealImage& image, std::ostream* out) { *out << image.id; }

}  // namespace pellucid
