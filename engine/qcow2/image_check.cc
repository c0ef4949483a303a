#include "engine/qcow2/image_check.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/qcow2/header_fields.h"
#include "engine/qcow2/refcount_comparison.h"
#include "engine/qcow2/snapshots.h"

namespace pellucid::qcow2 {
namespace {

// What is not wrong, but worth knowing.
Findings Warnings(const std::string& file_name, const Header& header,
                  const ReferenceScan& scan, uint64_t leaks_behind_end) {
  Findings warnings;
  const auto warn = [&](FindingKind kind, uint64_t offset, auto text) {
    warnings.Add(kind, offset,
                 [&] { return fmt::format("{}: {}", file_name, text); });
  };
  if (header.has(kDirty)) {
    warn(FindingKind::kMark, kIncompatibleFeatures.byte,
         "was not closed properly (the dirty bit of header field "
         "incompatible_features, byte 72, is set): its refcounts are made anew "
         "by the first write");
  }
  if (header.has(kCorrupt)) {
    warn(FindingKind::kMark, kIncompatibleFeatures.byte,
         "is marked as corrupt (bit 1 of header field incompatible_features, "
         "byte 72): it cannot be written to");
  }
  if (leaks_behind_end != 0) {
    warn(FindingKind::kMark, header.refcount_table_offset,
         fmt::format("the refcount table (header field refcount_table_offset, "
                     "byte 48) counts {} clusters behind the end of the file",
                     leaks_behind_end));
  }
  if (header.crypt_method != CryptMethod::kNone &&
      scan.compressed_entries != 0) {
    warn(FindingKind::kPlaintext, scan.first_compressed,
         fmt::format("the image is encrypted (header field crypt_method, byte "
                     "32), but {} compressed clusters lie in it as plaintext; "
                     "the L2 entry of one is at byte {}",
                     scan.compressed_entries, scan.first_compressed));
  }
  return warnings;
}

// The parts of a check as one piece of work, in bytes of tables: all L2 tables
// are scanned, the refcount blocks that the file needs are compared, and the L2
// tables of the active state, all at most, are read again.
class CheckWatch {
 public:
  CheckWatch(BlockDevice& file, const Header& header, const WorkWatch& watch)
      : watch_(watch),
        cluster_size_(header.cluster_size()),
        blocks_((file.size() / header.cluster_size() /
                 ((header.cluster_size() * 8) >> header.refcount_order)) +
                1) {}

  WorkWatch scan() {
    if (!watch_) return {};
    return [this](uint64_t done, uint64_t tables) {
      tables_ = tables;
      Tell(done);
    };
  }
  WorkWatch comparison() const {
    if (!watch_) return {};
    return [this](uint64_t done, uint64_t) {
      Tell(tables_ + std::min(done, blocks_));
    };
  }
  WorkWatch flags() const {
    if (!watch_) return {};
    return [this](uint64_t done, uint64_t) { Tell(tables_ + blocks_ + done); };
  }

 private:
  void Tell(uint64_t done) const {
    watch_(done * cluster_size_, (2 * tables_ + blocks_) * cluster_size_);
  }

  const WorkWatch& watch_;
  const uint64_t cluster_size_;
  const uint64_t blocks_;
  uint64_t tables_ = 0;
};

}  // namespace

std::vector<std::string> ImageCheck::texts() const {
  std::vector<std::string> texts;
  for (const Finding& finding : findings.list()) {
    const Severity severity = SeverityOf(finding.kind);
    if (severity == Severity::kCorruption || severity == Severity::kHazard) {
      texts.push_back(finding.text);
    }
  }
  return texts;
}

ImageCheck CheckImage(BlockDevice& file, const std::string& file_name,
                      const Header& header, const WorkWatch& watch) {
  CheckWatch parts(file, header, watch);
  const std::vector<Snapshot> snapshots =
      ReadSnapshots(file, file_name, header);
  const ReferenceScan scan = ScanReferences(file, file_name, header, snapshots,
                                            CountRefcounts::kYes, parts.scan());
  Findings refcounts;
  Findings leaks;
  const RefcountComparison comparison = CompareWithRefcounts(
      file, header, scan.counts,
      [&](const RefcountDifference& difference) {
        const uint64_t offset = difference.cluster * header.cluster_size();
        const bool is_leak = difference.is_leak();
        if (is_leak && offset >= file.size() && difference.counted == 0) return;
        (is_leak ? leaks : refcounts)
            .Add(
                is_leak ? FindingKind::kLeak : FindingKind::kRefcount, offset,
                [&] {
                  return fmt::format(
                      "{}: the cluster at {:#x} has the refcount {} but is "
                      "referred to {} times",
                      file_name, offset, difference.stored, difference.counted);
                },
                difference.clusters);
      },
      parts.comparison());
  const Findings flags = CheckCopiedFlags(
      file, file_name, header, comparison.stored_once, parts.flags());
  const Findings warnings =
      Warnings(file_name, header, scan, comparison.leaks_behind_end);
  ImageCheck result;
  result.leaks = comparison.leaks;
  result.leaks_behind_end = comparison.leaks_behind_end;
  result.unreadable = comparison.unreadable;
  result.corruptions =
      scan.corruptions.count() + comparison.corruptions + flags.count();
  result.hazards = scan.hazards.count();
  result.total_clusters = header.size / header.cluster_size() +
                          (header.size % header.cluster_size() != 0);
  result.mapping = scan.mapping;
  result.image_end = comparison.used_end * header.cluster_size();
  result.findings.Append(scan.corruptions);
  result.findings.Append(refcounts);
  result.findings.Append(flags);
  result.findings.Append(scan.hazards);
  result.findings.Append(warnings);
  result.findings.Append(leaks);
  return result;
}

}  // namespace pellucid::qcow2
