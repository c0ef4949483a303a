#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "engine/errors.h"
#include "engine/qcow2/image_check.h"
#include "engine/qcow2/snapshots.h"
#include "tests/engine/crash_judge.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

constexpr const char* kName = "crashed.qcow2";

}  // namespace

CrashFailures CountFailures(CrashJudge& judge, const CrashDisks& disks) {
  CrashFailures failures;
  ForEachCrashPoint(disks, 2, 3, [&](const CrashPoint& point) {
    const std::string wrong = judge.Judge(point);
    if (wrong.find("corruptions") != std::string::npos) ++failures.corrupt;
    if (wrong.find("must hold version") != std::string::npos) ++failures.lost;
  });
  return failures;
}

std::string QemuCheck(const std::vector<std::string>& open_arguments,
                      bool leaks_allowed, const std::filesystem::path& folder) {
  std::vector<std::string> command = {"qemu-img", "check", "--output=json"};
  command.insert(command.end(), open_arguments.begin(), open_arguments.end());
  const ProgramResult result = RunProgram(command, "", folder);
  if (result.out.empty()) {
    return fmt::format("qemu-img check cannot: {}", result.err);
  }
  const auto report = nlohmann::json::parse(result.out);
  const uint64_t leaks = report.value("leaks", uint64_t{0});
  if (report.value("corruptions", uint64_t{0}) != 0 ||
      report.value("check-errors", uint64_t{0}) != 0 ||
      (result.exit_code != 0 && result.exit_code != 3) ||
      (leaks != 0 && !leaks_allowed)) {
    return fmt::format("qemu-img check: exit code {}: {}{}", result.exit_code,
                       result.err, result.out);
  }
  return "";
}

CrashJudge::CrashJudge(OpenImage open_image, GiveToQemu give_to_qemu,
                       SyncedModel& model, uint64_t qemu_every)
    : open_image_(std::move(open_image)),
      give_to_qemu_(std::move(give_to_qemu)),
      model_(model),
      qemu_every_(qemu_every) {}

std::string CrashJudge::Judge(const CrashPoint& point) {
  const auto failed = [&](const std::string& why) {
    return fmt::format("{}: {}", point.description, why);
  };
  try {
    BorrowedDisk image(point.disks[0]);
    const qcow2::Header header = qcow2::ReadHeader(image, kName);
    std::string wrong = JudgeMetadata(image, header);
    if (!wrong.empty()) return failed(wrong);
    const std::unique_ptr<BlockDevice> disk = open_image_(point.disks, header);
    content_.resize(disk->size());
    disk->Read(0, content_);
    wrong = model_.Check(content_, point.position);
    if (!wrong.empty()) return failed(wrong);
    if (qemu_every_ != 0 && judged_++ % qemu_every_ == 0) {
      wrong = AskQemu(point.disks, header);
      if (!wrong.empty()) return failed(wrong);
    }
  } catch (const Error& error) {
    return failed(error.what());
  }
  return "";
}

std::string CrashJudge::JudgeMetadata(BlockDevice& image,
                                      const qcow2::Header& header) {
  if (!header.has(qcow2::kDirty)) {
    const qcow2::ImageCheck check = qcow2::CheckImage(image, kName, header);
    if (check.is_sound()) return "";
    return fmt::format("{} corruptions, {} hazards, {} unreadable; first: {}",
                       check.corruptions, check.hazards, check.unreadable,
                       check.texts().empty() ? "" : check.texts()[0]);
  }
  const qcow2::ReferenceScan scan = qcow2::ScanReferences(
      image, kName, header, qcow2::ReadSnapshots(image, kName, header));
  for (const Findings* findings : {&scan.corruptions, &scan.hazards}) {
    if (findings->count() != 0) return findings->list()[0].text;
  }
  return "";
}

std::string CrashJudge::AskQemu(
    const std::vector<std::span<const std::byte>>& disks,
    const qcow2::Header& header) {
  const std::vector<std::string> open = give_to_qemu_(disks);
  ++asked_qemu_;
  if (header.has(qcow2::kDirty)) {
    std::vector<std::string> command = {"qemu-img", "check", "-q", "-r", "all"};
    command.insert(command.end(), open.begin(), open.end());
    RunProgram(command);
  }
  return QemuCheck(open);
}

}  // namespace pellucid
