#ifndef PELLUCID_TESTS_ENGINE_QEMU_IMAGES_FIXTURE_H_
#define PELLUCID_TESTS_ENGINE_QEMU_IMAGES_FIXTURE_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "engine/open_image.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/opened_image_fixture.h"

namespace pellucid {

// A qcow2 image for the qemu-img of the machine to make.
struct QemuImage {
  std::string name;        // Of the file.
  std::string encryption;  // none, aes, luks
  uint64_t cluster_size = 65536;
  uint64_t virtual_size = 0;
  bool version2 = false;
  bool extended_l2 = false;
  std::vector<std::string> more_options;  // As `qemu-img create -o` takes them.
  std::string backing;                    // Name of a QemuImage made before.
};

// Makes images in a folder of its own and writes to them with qemu-io; keeps
// what is needed to open a whole chain again. Throws if a tool is missing or
// fails.
class QemuImages {
 public:
  QemuImages();

  void Create(const QemuImage& image);
  // Runs qemu-io commands on the image, all in one process.
  void Write(const std::string& name, const std::vector<std::string>& commands);
  // The guest's view as QEMU has it.
  Bytes Content(const std::string& name) const;

  std::filesystem::path path(const std::string& name) const {
    return folder_ / name;
  }
  const std::filesystem::path& folder() const { return folder_.path(); }
  // A file of random bytes for `write -s`; there are kSources of them, all of
  // different lengths.
  static constexpr unsigned kSources = 7;
  std::string source(unsigned i) const;

  // Opens it with the engine; every layer has a passphrase of its own.
  std::unique_ptr<BlockDevice> Open(const std::string& name) const;
  OpenOptions options(const std::string& name) const;
  KnownPassphrases passphrases() const;
  // The files that hold the passphrases of the chain, top to bottom.
  std::vector<std::filesystem::path> KeyFiles(const std::string& name) const;

  // The arguments with which a QEMU tool opens the chain: objects, then
  // --image-opts and its value.
  std::vector<std::string> OpenArguments(const std::string& name) const;

 private:
  const QemuImage& Find(const std::string& name) const;
  std::filesystem::path KeyFile(const std::string& name) const;

  ScratchFolder folder_;
  std::vector<QemuImage> images_;
};

// qemu-io commands that scatter `count` operations over the first `size` bytes:
// small and unaligned writes, ones that cross clusters, zero writes, discards.
std::vector<std::string> ScatteredWrites(const QemuImages& images,
                                         uint64_t size, uint64_t cluster_size,
                                         int count, uint64_t seed);

// One member of the product {cluster size} x {version} x {encryption} x
// {backing}.
struct ImageVariant {
  uint64_t cluster_size = 0;
  std::string version;     // v2, v3, extended
  std::string encryption;  // none, aes, luks
  bool has_backing = false;
};
std::vector<ImageVariant> AllVariants();
std::string TestName(const ImageVariant& variant);
void PrintTo(const ImageVariant& variant, std::ostream* out);

// Makes the variant, named "top.qcow2"; a backing image, "base.qcow2", differs
// from it in cluster size and encryption and may be shorter or longer.
void MakeVariant(const ImageVariant& variant, QemuImages& images);

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_QEMU_IMAGES_FIXTURE_H_
