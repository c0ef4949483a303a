#ifndef PELLUCID_TESTS_ENGINE_MANIFEST_FIXTURE_H_
#define PELLUCID_TESTS_ENGINE_MANIFEST_FIXTURE_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "engine/open_image.h"
#include "tests/engine/opened_image_fixture.h"

namespace pellucid {

struct ExpectedExtent {
  uint64_t offset = 0;
  uint64_t length = 0;
  std::string sha256;
};

// What an image shows, in its active state or in a snapshot.
struct ExpectedContent {
  std::string snapshot_name;  // Both are empty for the active state.
  std::string snapshot_id;
  uint64_t virtual_size = 0;
  std::string sha256;
  std::vector<ExpectedExtent> extents;
};

// A passphrase, or the name of a file that holds it.
struct ManifestSecret {
  std::string passphrase;
  std::string key_file;
  std::optional<unsigned> keyslot;
  bool only_if_slot_named = false;
};

struct BackingLayer {
  std::string file;
  std::optional<ManifestSecret> secret;
};

// One case of the manifest, as tests/images/README.md describes it.
struct RealImage {
  std::string id;
  std::filesystem::path folder;  // Of the manifest.
  std::vector<std::string> files;
  std::string image;
  std::string header;  // Empty unless it is detached.
  ContainerFormat format = ContainerFormat::kAuto;
  ContainerFormat header_format = ContainerFormat::kAuto;
  std::string encryption;  // none, aes, luks, luks1, luks2
  std::optional<ManifestSecret> secret;
  std::vector<ManifestSecret> other_secrets;
  std::vector<ManifestSecret> refused_secrets;
  std::vector<BackingLayer> backing;
  bool must_be_refused = false;
  // Of the top layer; empty if the manifest does not say.
  std::optional<uint64_t> compressed_clusters;
  ExpectedContent active;
  std::vector<ExpectedContent> snapshots;

  // How to open it, its files being in `unpacked`.
  OpenOptions options(const std::filesystem::path& unpacked) const;
  // The secrets of all layers, that of the encrypted top layer being `secret`.
  KnownPassphrases Passphrases(const std::filesystem::path& unpacked,
                               const ManifestSecret& secret) const;
  // Every secret of the stack once, top to bottom.
  std::vector<std::string> AllSecrets(
      const std::filesystem::path& unpacked) const;
};

std::string SecretBytesOf(const ManifestSecret& secret,
                          const std::filesystem::path& unpacked);

// The cases whose encryption is one of `kinds`, of the images here and of those
// in the folder that the environment variable PELLUCID_EXTRA_IMAGES names.
std::vector<RealImage> RealImagesOf(const std::set<std::string>& kinds);

// Unpacks the case's files unless they are there; gives their folder, which
// other test processes use as well and nobody may write to.
std::filesystem::path Unpack(const RealImage& image);

// The case's id with nothing in it but letters, digits and underscores.
std::string TestName(const RealImage& image);

void PrintTo(const RealImage& image, std::ostream* out);

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_MANIFEST_FIXTURE_H_
