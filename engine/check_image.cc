#include "engine/check_image.h"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "engine/errors.h"
#include "engine/header_transfer.h"
#include "engine/image_layers.h"
#include "engine/layer_file.h"
#include "engine/luks/header_check.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/image_check.h"
#include "engine/qcow2/image_repair.h"

namespace pellucid {
namespace {

// What overlaps with tables that a repair writes anew is settled by the next
// repair.
constexpr int kMaxRepairs = 3;

// One look at an image.
class Look {
 public:
  Look(const OpenOptions& options, const WorkWatch& watch)
      : options_(options), watch_(watch), name_(options.image.native()) {}

  CheckReport Check() {
    CheckContainer();
    if (options_.encryption == Encryption::kNone || is_encrypted_) {
      return std::move(report_);
    }
    if (!options_.header.empty()) {
      CheckVolumeHeader(options_.header, options_.header_format);
      return std::move(report_);
    }
    try {
      CheckVolumeHeader(options_.image, options_.format);
    } catch (const Error& error) {
      if (report_.format == "raw") throw;
      report_.findings.Add(FindingKind::kUnseen, 0, [&] {
        return fmt::format(
            "{}: was not searched for a LUKS header among its guest data: {}",
            name_, error.what());
      });
    }
    return std::move(report_);
  }

 private:
  FileAccess access() const {
    return options_.force_share ? FileAccess::kReadShared : FileAccess::kRead;
  }

  void CheckContainer() {
    const LayerFile file = LayerFile::Open(options_.image, access());
    payload_size_ = file.device().size();
    if (!IsQcow2(file.device(), options_.image, options_.format, options_)) {
      report_.format = "raw";
      return;
    }
    report_.format = "qcow2";
    const qcow2::Header header = qcow2::ReadHeader(file.device(), name_);
    payload_size_ = header.size;
    is_encrypted_ = header.crypt_method != qcow2::CryptMethod::kNone;
    qcow2::ImageCheck check =
        qcow2::CheckImage(file.device(), name_, header, watch_);
    report_.findings = std::move(check.findings);
    report_.clusters = {.image_end_offset = check.image_end,
                        .total_clusters = check.total_clusters,
                        .allocated_clusters = check.mapping.allocated,
                        .fragmented_clusters = check.mapping.fragmented,
                        .compressed_clusters = check.mapping.compressed};
    if (!header.crypto_header) return;
    report_.has_luks_header = true;
    luks::CheckHeader(file.device(), header.crypto_header->offset,
                      header.crypto_header->length, name_,
                      luks::Place::kEmbedded, report_.findings);
  }

  // The header at the start of what `holder` shows.
  void CheckVolumeHeader(const std::filesystem::path& holder,
                         ContainerFormat format) {
    const bool detached = holder != options_.image;
    auto layers =
        OpenLayers(holder, format, "", options_, IfNamedFileFails::kThrow);
    if (layers->qcow2 &&
        layers->qcow2->crypt_method != qcow2::CryptMethod::kNone) {
      throw Unsupported(fmt::format(
          "{}: is encrypted itself, so that the LUKS header in it cannot be "
          "looked at",
          holder.native()));
    }
    const auto device = AssembleLayers(std::move(layers)).device;
    if (!detached && !luks::IsLuksVolume(*device)) return;
    report_.has_luks_header = true;
    const luks::Place place = PlaceIn(*device, holder.native(), detached);
    const auto located = luks::CheckHeader(
        *device, 0, device->size(), holder.native(), place, report_.findings);
    // A header file that is checked by itself has no payload.
    if (!located || (!detached && place == luks::Place::kDetached)) return;
    try {
      luks::CheckPayload(*located, payload_size_, name_);
    } catch (const CorruptImage& error) {
      report_.findings.Add(FindingKind::kLuksHeader, 0,
                           [&] { return std::string(error.what()); });
    }
  }

  static luks::Place PlaceIn(BlockDevice& device, const std::string& name,
                             bool detached) {
    if (detached) return luks::Place::kDetached;
    try {
      const luks::LocatedHeader located = luks::ReadLuksHeader(
          device, 0, device.size(), name, luks::Place::kDetached);
      if (located.header.segments.front().offset == 0) {
        return luks::Place::kDetached;
      }
    } catch (const Error&) {
      // CheckHeader() will tell.
    }
    return luks::Place::kInPlace;
  }

  const OpenOptions& options_;
  const WorkWatch& watch_;
  const std::string name_;
  CheckReport report_;
  bool is_encrypted_ = false;  // By the container.
  uint64_t payload_size_ = 0;
};

bool Has(const CheckReport& report, Severity severity) {
  return report.findings.count(severity) != 0;
}

// Whether the tables of a qcow2 image are to be made anew.
bool NeedsNewTables(const CheckReport& report, Repair repair) {
  if (!report.clusters) return false;
  if (repair == Repair::kLeaks) {
    return !Has(report, Severity::kCorruption) && Has(report, Severity::kLeak);
  }
  return Has(report, Severity::kCorruption) || Has(report, Severity::kLeak) ||
         (report.findings.count(FindingKind::kMark) != 0 &&
          !Has(report, Severity::kHazard));
}

void RepairTables(const OpenOptions& options) {
  const LayerFile file = LayerFile::Open(options.image, FileAccess::kWrite);
  qcow2::RepairImage(*file.writable, options.image.native());
}

uint64_t Fixed(const Findings& before, const Findings& after,
               Severity severity) {
  const uint64_t now = after.count(severity);
  return before.count(severity) > now ? before.count(severity) - now : 0;
}

}  // namespace

CheckReport CheckImage(const OpenOptions& options, Repair repair,
                       const WorkWatch& watch) {
  CheckOptions(options);
  CheckReport report = Look(options, watch).Check();
  if (repair == Repair::kNone) return report;
  const Findings before = report.findings;
  std::string not_repaired;
  if (repair == Repair::kLeaks && Has(report, Severity::kCorruption)) {
    not_repaired = fmt::format(
        "{}: leaks are given back only where nothing else is wrong; "
        "--repair all puts both right",
        options.image.native());
  }
  const auto attempt = [&](const auto& change) {
    try {
      change();
    } catch (const CorruptImage& error) {
      not_repaired = error.what();
    } catch (const Unsupported& error) {
      not_repaired = error.what();
    }
    report = Look(options, watch).Check();
  };
  for (int i = 0; i < kMaxRepairs && not_repaired.empty() &&
                  NeedsNewTables(report, repair);
       ++i) {
    attempt([&] { RepairTables(options); });
  }
  if (repair == Repair::kAll &&
      report.findings.count(FindingKind::kLuksCopy) != 0) {
    attempt([&] { RepairHeader(options, /*force=*/false); });
  }
  report.corruptions_fixed =
      Fixed(before, report.findings, Severity::kCorruption);
  report.leaks_fixed = Fixed(before, report.findings, Severity::kLeak);
  report.hazards_fixed = Fixed(before, report.findings, Severity::kHazard);
  report.not_repaired = std::move(not_repaired);
  return report;
}

}  // namespace pellucid
