#ifndef PELLUCID_TESTS_ENGINE_HOSTILE_IMAGES_FIXTURE_H_
#define PELLUCID_TESTS_ENGINE_HOSTILE_IMAGES_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/qemu_images_fixture.h"

namespace pellucid {

// What became of opening a damaged image and reading from it.
struct Outcome {
  std::optional<ExitCode> error;  // Nothing if all could be read.
  std::string text;               // The error's.
  Bytes content;                  // Up to Attempt()'s limit.
};

// Takes an image that QEMU made, damages it in memory and opens the result.
class HostileImageTest : public ::testing::Test {
 protected:
  // Makes `name` with some data in it and gives its bytes.
  Bytes Make(QemuImage image);
  // 3 MiB in clusters of 64 KiB, without encryption.
  static QemuImage PlainImage(const std::string& name = "disk.qcow2");

  // Writes `content` over the image.
  void Put(const std::string& name, std::span<const std::byte> content);

  // Opens it, walks its extents and reads it from the start, all up to `limit`
  // bytes, and a bit at its end. Any exception that is no Error is let through.
  Outcome Attempt(const std::string& name, uint64_t limit = 8 << 20);

  // Fails the test unless the attempt gives an error of this kind whose single
  // line has the file's name and each of `words`.
  void ExpectRefused(const std::string& name, ExitCode kind,
                     const std::vector<std::string>& words);

  // Places of what the header refers to.
  static uint64_t L1TableOffset(const Bytes& image);
  // The first L2 table, and its first entry whose low 62 bits are not 0.
  static uint64_t L2TableOffset(const Bytes& image);
  static uint64_t FirstL2Entry(const Bytes& image);
  // Where a header extension's type stands; throws without one.
  static uint64_t ExtensionOffset(const Bytes& image, uint32_t type);

  QemuImages images_;
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_HOSTILE_IMAGES_FIXTURE_H_
