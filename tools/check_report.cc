#include "tools/check_report.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "engine/printable.h"

namespace pellucid::cli {
namespace {

using Json = nlohmann::ordered_json;

// Of each kind in the text; JSON has as many as Findings keeps.
constexpr uint64_t kMaxLines = 10;

struct KindText {
  const char* name;    // In JSON.
  const char* plural;  // What they are, for people.
  const char* remedy;  // With the image in place of {}.
};

constexpr std::array<KindText, kFindingKinds> kKinds = {{
    {"entry", "table entries that cannot be right",
     "nobody can tell what they referred to: save what can be read with "
     "`pellucid export --read-only {} FILE`"},
    {"refcount-table", "faults of the refcount table",
     "`pellucid check --repair all {}` makes it anew"},
    {"refcount",
     "refcounts that are too low: clusters in use could be given "
     "away",
     "`pellucid check --repair all {}` puts them right"},
    {"copied-flag", "copied flags that disagree with the refcount",
     "`pellucid check --repair all {}` puts them right"},
    {"leak", "leaked clusters, which waste space and harm nothing",
     "`pellucid check --repair leaks {}` gives them back"},
    {"overlap", "tables that are used as something else too",
     "do not write to the image: `pellucid export --read-only {} FILE` saves "
     "what can be read; --repair all helps against some"},
    {"cut-off", "tables that are cut off by the end of the file",
     "the file is too short: copy it again from where it came from, or save "
     "what can be read with `pellucid export --read-only {} FILE`"},
    {"foreign-bit", "flags of another version of the format",
     "`qemu-img convert` makes an image of version 3"},
    {"luks-header", "faults of the LUKS header",
     "`pellucid header restore {} BACKUP` brings a backup of it back"},
    {"luks-copy", "faults of one of the two copies of the LUKS2 header",
     "`pellucid check --repair all {}` makes both alike"},
    {"keyslot", "keyslots whose key material is overwritten",
     "`pellucid key remove {} N` forgets the keyslot if another one opens the "
     "volume; otherwise `pellucid header restore {} BACKUP`"},
    {"plaintext", "places where plaintext lies in an encrypted image",
     "`pellucid export` and `pellucid import` into a new image encrypt all of "
     "it"},
    {"mark", "marks of an image that was not closed properly",
     "`pellucid check --repair all {}` clears them if all else is right"},
    {"no-keyslot", "LUKS headers without a keyslot",
     "`pellucid key add --volume-key-file FILE {}` adds one"},
    {"unseen", "parts that were not checked", "see there"},
}};

const char* SeverityName(Severity severity) {
  switch (severity) {
    case Severity::kCorruption:
      return "corruption";
    case Severity::kLeak:
      return "leak";
    case Severity::kHazard:
      return "hazard";
    case Severity::kWarning:
      break;
  }
  return "warning";
}

std::string RemedyFor(FindingKind kind, const std::filesystem::path& image) {
  std::string remedy = kKinds[static_cast<size_t>(kind)].remedy;
  constexpr std::string_view kPlace = "{}";
  for (size_t at = remedy.find(kPlace); at != std::string::npos;
       at = remedy.find(kPlace, at + image.native().size())) {
    remedy.replace(at, kPlace.size(), image.native());
  }
  return remedy;
}

std::string FormatKind(FindingKind kind, const std::filesystem::path& image,
                       const Findings& findings) {
  const uint64_t count = findings.count(kind);
  if (count == 0) return "";
  std::string text =
      fmt::format("{}: {} {}\n", SeverityName(SeverityOf(kind)), count,
                  kKinds[static_cast<size_t>(kind)].plural);
  uint64_t lines = 0;
  uint64_t kept = 0;
  for (const Finding& finding : findings.list()) {
    if (finding.kind != kind) continue;
    ++kept;
    if (lines == kMaxLines) continue;
    ++lines;
    text += fmt::format("  {}\n", Printable(finding.text));
  }
  if (kept > lines) text += fmt::format("  ... ({} shown)\n", lines);
  return text +
         fmt::format("  remedy: {}\n", Printable(RemedyFor(kind, image)));
}

std::string Percent(uint64_t part, uint64_t whole) {
  if (whole == 0) return "0.00%";
  return fmt::format("{:.2f}%", 100.0 * static_cast<double>(part) /
                                    static_cast<double>(whole));
}

}  // namespace

std::string FormatCheckAsText(const std::filesystem::path& image,
                              const CheckReport& report) {
  std::string text;
  for (size_t i = 0; i < kFindingKinds; ++i) {
    text += FormatKind(static_cast<FindingKind>(i), image, report.findings);
  }
  const auto fixed = [&](uint64_t count, const char* what) {
    if (count != 0) text += fmt::format("{} {} put right\n", count, what);
  };
  fixed(report.corruptions_fixed, "corruptions");
  fixed(report.leaks_fixed, "leaked clusters");
  fixed(report.hazards_fixed, "hazards");
  if (!report.not_repaired.empty()) {
    text += fmt::format("not repaired: {}\n", Printable(report.not_repaired));
  }
  const auto count = [&](Severity severity) {
    return report.findings.count(severity);
  };
  const std::string name = Printable(image.native());
  if (count(Severity::kCorruption) + count(Severity::kHazard) +
          count(Severity::kLeak) ==
      0) {
    text += fmt::format("{}: no errors were found\n", name);
  } else {
    text += fmt::format("{}: {} corruptions, {} hazards, {} leaked clusters\n",
                        name, count(Severity::kCorruption),
                        count(Severity::kHazard), count(Severity::kLeak));
  }
  if (report.clusters) {
    const ClusterStatistics& clusters = *report.clusters;
    text += fmt::format(
        "{} of {} clusters ({}) are allocated, {} of those are fragmented, {} "
        "compressed\nThe last cluster in use ends at byte {}\n",
        clusters.allocated_clusters, clusters.total_clusters,
        Percent(clusters.allocated_clusters, clusters.total_clusters),
        Percent(clusters.fragmented_clusters, clusters.allocated_clusters),
        Percent(clusters.compressed_clusters, clusters.allocated_clusters),
        clusters.image_end_offset);
  }
  return text;
}

std::string FormatCheckAsJson(const std::filesystem::path& image,
                              const CheckReport& report) {
  Json json = {{"filename", image.native()},
               {"format", report.format},
               {"check-errors", 0}};
  if (report.clusters) {
    json["image-end-offset"] = report.clusters->image_end_offset;
    json["total-clusters"] = report.clusters->total_clusters;
    json["allocated-clusters"] = report.clusters->allocated_clusters;
    json["fragmented-clusters"] = report.clusters->fragmented_clusters;
    json["compressed-clusters"] = report.clusters->compressed_clusters;
  }
  const Findings& findings = report.findings;
  json["corruptions"] = findings.count(Severity::kCorruption);
  json["leaks"] = findings.count(Severity::kLeak);
  json["hazards"] = findings.count(Severity::kHazard);
  json["warnings"] = findings.count(Severity::kWarning);
  json["corruptions-fixed"] = report.corruptions_fixed;
  json["leaks-fixed"] = report.leaks_fixed;
  json["hazards-fixed"] = report.hazards_fixed;
  json["not-repaired"] =
      report.not_repaired.empty() ? Json(nullptr) : Json(report.not_repaired);
  json["luks-header-checked"] = report.has_luks_header;
  json["findings"] = Json::array();
  for (const Finding& finding : findings.list()) {
    json["findings"].push_back(
        {{"kind", kKinds[static_cast<size_t>(finding.kind)].name},
         {"severity", SeverityName(SeverityOf(finding.kind))},
         {"offset", finding.offset},
         {"text", finding.text},
         {"remedy", RemedyFor(finding.kind, image)}});
  }
  constexpr bool kAsciiOnly = true;
  return json.dump(2, ' ', kAsciiOnly, Json::error_handler_t::replace) + "\n";
}

}  // namespace pellucid::cli
