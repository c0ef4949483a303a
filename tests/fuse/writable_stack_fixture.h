#ifndef PELLUCID_TESTS_FUSE_WRITABLE_STACK_FIXTURE_H_
#define PELLUCID_TESTS_FUSE_WRITABLE_STACK_FIXTURE_H_

#include <cstdint>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/qemu_images_fixture.h"

namespace pellucid::fuse {

// One kind of image that can be written.
struct StackKind {
  std::string name;
  std::string container = "qcow2";  // Or raw.
  std::string encryption = "none";  // Of qcow2: none, aes, luks.
  uint64_t cluster_size = 65536;
  bool version2 = false;
  bool extended_l2 = false;
  bool lazy_refcounts = false;
  bool compressed = false;  // Some clusters are.
  bool snapshots = false;   // There is one, called "before".
  bool data_file = false;   // The clusters are in a file of their own.
  std::string backing_encryption = "";  // Empty: no backing file.
  unsigned luks_layer = 0;              // LUKS version of the layer above.
  bool detached = false;                // Its header is in a file of its own.
  std::string cache = "writeback";
};
std::vector<StackKind> AllStackKinds();
// The kind of that name; throws if there is none.
StackKind FindStackKind(const std::string& name);
void PrintTo(const StackKind& kind, std::ostream* out);

// An image of a kind, made by QEMU and cryptsetup, and what these make of it
// after it was written. Throws if a tool is missing or fails.
class WritableStack {
 public:
  // The image is given some content; `size` is that of the plaintext, which
  // must be a multiple of 4096 for LUKS2 and of 512 otherwise.
  WritableStack(const StackKind& kind, uint64_t size);

  // Fits every kind; a cluster is cut by the end.
  static uint64_t DefaultSize(const StackKind& kind);

  // The options and the operand that open it, for any subcommand.
  std::vector<std::string> OpenArguments() const;
  // The whole of `pellucid mount`, without mountpoint.
  std::vector<std::string> MountArguments() const;

  // The plaintext as other programs than ours read it.
  Bytes ContentByOthers() const;
  // The same as a file, which the next call replaces.
  std::filesystem::path PlaintextByOthers() const;
  Bytes SnapshotByOthers() const;
  // False if QEMU cannot open this kind for writing.
  bool QemuWrites() const;
  // Runs a command of qemu-io on the plaintext.
  void WriteByQemu(const std::string& command);

  // What is wrong with the image in the opinion of qemu-img check; empty if
  // nothing is. Leaked clusters count only on demand.
  std::string Damage(bool allow_leaks) const;

  // Every file that belongs to it.
  std::vector<std::filesystem::path> files() const;
  std::filesystem::path image() const;
  // What QEMU's tools open it with: objects, --image-opts, the options.
  std::vector<std::string> QemuArguments() const;

 private:
  static constexpr uint64_t kLuks1HeaderBytes = 2 << 20;
  static constexpr uint64_t kLuks2HeaderBytes = 16 << 20;

  void MakeQcow2(uint64_t size);
  void MakeLuksLayer(uint64_t size);
  Bytes Ciphertext() const;
  std::string QemuLuksOptions(const std::filesystem::path& volume) const;

  const StackKind kind_;
  QemuImages images_;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_TESTS_FUSE_WRITABLE_STACK_FIXTURE_H_
