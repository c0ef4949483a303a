#ifndef PELLUCID_TESTS_ENGINE_CRASH_JUDGE_H_
#define PELLUCID_TESTS_ENGINE_CRASH_JUDGE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/qcow2/header.h"
#include "tests/engine/crash_points.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/synced_model.h"

namespace pellucid {

// Says whether a qcow2 image survived a power cut: no corruption, leaks
// allowed, and every sector as the model has it.
class CrashJudge {
 public:
  // Opens the virtual disk of an image read-only. `disks` as in CrashPoint;
  // the image is the first one.
  using OpenImage = std::function<std::unique_ptr<BlockDevice>(
      const std::vector<std::span<const std::byte>>& disks,
      const qcow2::Header& header)>;

  // Puts the files of an image where QEMU can open them, and gives the
  // arguments with which its tools do.
  using GiveToQemu = std::function<std::vector<std::string>(
      const std::vector<std::span<const std::byte>>& disks)>;

  // Borrows `model`. Every `qemu_every`-th image is judged by `qemu-img check`
  // as well; 0 asks it never.
  CrashJudge(OpenImage open_image, GiveToQemu give_to_qemu, SyncedModel& model,
             uint64_t qemu_every);

  // What is wrong; empty if nothing is. An image whose dirty bit is set may
  // have wrong refcounts: they are to be repaired before it is written to.
  std::string Judge(const CrashPoint& point);

  uint64_t asked_qemu() const { return asked_qemu_; }

 private:
  std::string JudgeMetadata(BlockDevice& image, const qcow2::Header& header);
  std::string AskQemu(const std::vector<std::span<const std::byte>>& disks,
                      const qcow2::Header& header);

  const OpenImage open_image_;
  const GiveToQemu give_to_qemu_;
  SyncedModel& model_;
  const uint64_t qemu_every_;
  Bytes content_;
  uint64_t judged_ = 0;
  uint64_t asked_qemu_ = 0;
};

// How many crash points a judge has found wrong, and how.
struct CrashFailures {
  uint64_t corrupt = 0;  // The metadata.
  uint64_t lost = 0;     // What was synced.
};
// For tests of the judge and of the points: `disks` did not keep their promise.
CrashFailures CountFailures(CrashJudge& judge, const CrashDisks& disks);

// What `qemu-img check` finds wrong with an image beyond leaks; empty if
// nothing. Leaks too if they are not allowed. `open_arguments` as
// QemuImages::OpenArguments() gives them, relative names from `folder` on.
std::string QemuCheck(const std::vector<std::string>& open_arguments,
                      bool leaks_allowed = true,
                      const std::filesystem::path& folder = {});

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_CRASH_JUDGE_H_
