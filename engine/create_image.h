#ifndef PELLUCID_ENGINE_CREATE_IMAGE_H_
#define PELLUCID_ENGINE_CREATE_IMAGE_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "crypto/secret_bytes.h"
#include "engine/luks/format_header.h"
#include "engine/open_image.h"
#include "engine/qcow2/create.h"
#include "engine/writable_device.h"

namespace pellucid {

// What the user wants a new image to be.
struct NewImage {
  std::filesystem::path image;
  ContainerFormat format = ContainerFormat::kQcow2;  // Or kRaw.
  // Of the plaintext; rounded up to whole sectors. That of the backing file if
  // empty.
  std::optional<uint64_t> size;
  std::optional<luks::FormatOptions> luks;  // Its layout follows from the rest.
  std::filesystem::path header;  // Detached LUKS header; empty without one.
  bool payload_exists = false;   // Make the detached header only.
  qcow2::CreateOptions qcow2;    // Its size follows from `size`.
  bool overwrite = false;
};

// The making of an image, in two steps, so that whatever can be refused is
// refused before anybody thinks of a passphrase. Not synchronised.
class ImageCreation {
 public:
  // Checks everything and changes nothing. Throws UsageError for what
  // contradicts itself or would overwrite what it must not, Unsupported for
  // algorithms, and what opening the backing file or the payload throws.
  explicit ImageCreation(NewImage wanted);

  // Bytes of the plaintext, whole sectors.
  uint64_t size() const { return size_; }
  const NewImage& wanted() const { return wanted_; }

  // Makes the files; `passphrase` will open them and is unused without
  // encryption. `checkpoint` is called between steps and may throw. If anything
  // throws, files that were made are removed again and those that were to be
  // overwritten are as they were. Throws ImageLocked if another program uses
  // one of the files, and IoError.
  void Run(const crypto::SecretBytes& passphrase,
           const std::function<void()>& checkpoint);

  // The part of Run() that fills the image's file, an empty one: whenever it is
  // cut off, a qcow2 image has no magic yet or is complete.
  void WriteImageTo(ResizableDevice& file,
                    const crypto::SecretBytes& passphrase) const;

 private:
  void CheckCombination() const;
  void CheckFiles() const;
  void CheckBacking();
  void CheckSize();
  void PlanQcow2();
  uint64_t PayloadFileBytes() const;

  NewImage wanted_;
  uint64_t size_ = 0;
  std::optional<qcow2::EmptyImage> qcow2_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_CREATE_IMAGE_H_
