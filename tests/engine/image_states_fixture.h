#ifndef PELLUCID_TESTS_ENGINE_IMAGE_STATES_FIXTURE_H_
#define PELLUCID_TESTS_ENGINE_IMAGE_STATES_FIXTURE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tests/engine/crash_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/writable_image_fixture.h"

namespace pellucid {

// The content of every state of an image: the active one under "", snapshots
// under their names.
using ImageStates = std::map<std::string, Bytes>;

ImageStates StatesOf(const ImageInMemory& image,
                     const std::vector<std::span<const std::byte>>& files);

// Where two differ, as a text; empty if they do not.
std::string DifferenceOf(const ImageStates& found, const ImageStates& expected);

// An image whose snapshots and size are to be changed.
struct ChangedImage {
  std::string name;
  QemuImage image;
  uint64_t base_size = 0;  // Of a backing image; 0: none.
  bool has_compressed = false;
  bool has_snapshots = true;  // Made by QEMU: "q0", and "q1" with other bytes.
};
void PrintTo(const ChangedImage& image, std::ostream* out);

// One of each kind that the tables of an image can be of.
std::vector<ChangedImage> ChangedImages();

// Makes it with QEMU, named "disk.qcow2".
void Make(const ChangedImage& image, QemuImages& images);
// And has it in memory.
ImageInMemory InMemory(const ChangedImage& image, const QemuImages& images);

// Fails the test unless the image is sound, without leaks, both as we and as
// QEMU see it.
void ExpectFlawless(const ImageInMemory& image,
                    const std::vector<Bytes>& files);

// Fails the test unless `change`, made to the image, takes it from its states
// to `after`, and every power cut during that leaves a sound image with the
// ones or the others, in which a writer can go on.
void ExpectAtomic(const ImageInMemory& image,
                  const std::function<void(CrashDisks& disks)>& change,
                  const ImageStates& after);

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_IMAGE_STATES_FIXTURE_H_
