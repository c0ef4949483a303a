#include "tools/info_text.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "engine/printable.h"
#include "tools/block_map.h"
#include "tools/byte_size.h"
#include "tools/utc_date.h"

namespace pellucid::cli {
namespace {

// The most that a name from an image may take up in a table. Names may have
// 64 KiB, and there may be thousands: the longest must not widen every row.
constexpr size_t kMaxColumns = 40;

// The characters of UTF-8 text, which is what fmt pads by; nearly.
size_t CountCharacters(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned>(c) & 0xc0) != 0x80; }));
}

// `text` for a column of a table, with an ellipsis if it had to be cut.
std::string Shortened(std::string_view text) {
  constexpr size_t kMaxUtf8Bytes = 4;
  std::string shown =
      Printable(text.substr(0, (kMaxColumns + 1) * kMaxUtf8Bytes));
  if (CountCharacters(shown) <= kMaxColumns) return shown;
  size_t end = 0;
  while (CountCharacters(std::string_view(shown).substr(0, end + 1)) <
         kMaxColumns) {
    ++end;
  }
  return shown.substr(0, end) + "\u2026";
}

// Collects lines at a depth of indentation.
class InfoText {
 public:
  void AddImage(const ImageInfo& info);
  void AddSnapshotTable(const std::vector<SnapshotInfo>& snapshots);
  std::string Take() { return std::move(text_); }

 private:
  void AddLine(std::string_view line) {
    text_ += fmt::format("{:{}}{}\n", "", 2 * depth_, line);
  }
  void AddFact(std::string_view name, std::string_view value) {
    AddLine(fmt::format("{:<13}{}", fmt::format("{}:", name), value));
  }

  void AddQcow2(const Qcow2Info& qcow2);
  void AddLuks(const LuksInfo& luks);
  void AddKeyslots(const std::vector<KeyslotInfo>& keyslots);
  void AddSnapshots(const std::vector<SnapshotInfo>& snapshots);
  void AddBacking(const ImageInfo& info);

  std::string text_;
  int depth_ = 0;
};

std::string DescribeFormat(const ImageInfo& info) {
  if (!info.qcow2) return info.format;
  const Qcow2Info& qcow2 = *info.qcow2;
  return fmt::format("qcow2 version {}, {} clusters, {}-bit refcounts{}{}",
                     qcow2.version, FormatByteSize(qcow2.cluster_size),
                     qcow2.refcount_bits,
                     qcow2.extended_l2 ? ", extended L2 entries" : "",
                     qcow2.lazy_refcounts ? ", lazy refcounts" : "");
}

std::string DescribeEncryption(const ImageInfo& info) {
  std::string text;
  if (info.luks) {
    text =
        fmt::format("LUKS{}, header {}", info.luks->version, info.luks->place);
  }
  if (info.qcow2 && info.qcow2->encryption != "none") {
    if (!text.empty()) text += "; below it ";
    if (info.qcow2->encryption == "aes") {
      text += "legacy AES of qcow2 (AES-128-CBC, no check of the passphrase)";
    } else if (info.qcow2->luks) {
      text += fmt::format("LUKS{}, header {}", info.qcow2->luks->version,
                          info.qcow2->luks->place);
    } else {
      text += Printable(info.qcow2->encryption);
    }
  }
  return text.empty() ? "none" : text;
}

std::string DescribeAllocation(const Qcow2Info& qcow2) {
  return fmt::format(
      "{} of {} clusters, {}", qcow2.allocated_clusters, qcow2.total_clusters,
      FormatShare(qcow2.allocated_clusters, qcow2.total_clusters));
}

void InfoText::AddImage(const ImageInfo& info) {
  AddLine(Printable(info.file.string()));
  ++depth_;
  AddFact("format", DescribeFormat(info));
  AddFact("plaintext", FormatExactByteSize(info.virtual_size));
  AddFact("file",
          fmt::format("{}, {} on disk", FormatExactByteSize(info.file_size),
                      FormatByteSize(info.disk_size)));
  if (info.partition) {
    AddFact("partition",
            fmt::format("{}, {} from byte {}", info.partition->number,
                        FormatExactByteSize(info.partition->size),
                        info.partition->offset));
  }
  AddFact("encryption", DescribeEncryption(info));
  for (const unsigned number : info.luks_partitions) {
    AddFact("LUKS", fmt::format("in partition {0}; --partition {0} opens it",
                                number));
  }
  if (info.luks) AddLuks(*info.luks);
  if (info.qcow2) AddQcow2(*info.qcow2);
  for (const std::string& warning : info.warnings) {
    AddFact("warning", Printable(warning));
  }
  AddBacking(info);
  --depth_;
}

void InfoText::AddQcow2(const Qcow2Info& qcow2) {
  if (qcow2.luks) AddLuks(*qcow2.luks);
  AddFact("allocated", DescribeAllocation(qcow2));
  if (qcow2.compressed_clusters != 0) {
    AddFact("compressed",
            fmt::format("{} of them, with {}", qcow2.compressed_clusters,
                        Printable(qcow2.compression)));
  }
  if (!qcow2.data_file.empty()) {
    AddFact("data file", fmt::format("{}{}", Printable(qcow2.data_file),
                                     qcow2.data_file_raw ? " (raw)" : ""));
    if (!qcow2.data_file_path.empty()) {
      ++depth_;
      AddFact("opened as", Printable(qcow2.data_file_path.string()));
      --depth_;
    }
  }
  if (qcow2.bitmaps > 0) AddFact("bitmaps", std::to_string(qcow2.bitmaps));
  AddSnapshots(qcow2.snapshots);
}

void InfoText::AddLuks(const LuksInfo& luks) {
  ++depth_;
  AddFact("header", fmt::format("byte {} of {}", luks.header_offset,
                                Printable(luks.header_file.string())));
  AddFact("UUID", Printable(luks.uuid));
  AddFact("cipher", fmt::format("{}-{}, {}-bit key, hash {}",
                                Printable(luks.cipher), Printable(luks.mode),
                                luks.key_bits, Printable(luks.hash)));
  // In an embedded header the number means nothing.
  if (luks.place != "embedded") {
    AddFact("payload", fmt::format("from byte {}", luks.payload_offset));
  }
  if (luks.sector_size != 512) {
    AddFact("sector size", fmt::format("{} bytes", luks.sector_size));
  }
  if (!luks.label.empty()) AddFact("label", Printable(luks.label));
  AddKeyslots(luks.keyslots);
  for (const TokenInfo& token : luks.tokens) {
    AddFact("token", fmt::format("{}: {}", token.index, Printable(token.type)));
  }
  for (const std::string& warning : luks.warnings) {
    AddFact("warning", Printable(warning));
  }
  --depth_;
}

void InfoText::AddKeyslots(const std::vector<KeyslotInfo>& keyslots) {
  AddFact("keyslots", fmt::format("{} in use", keyslots.size()));
  ++depth_;
  for (const KeyslotInfo& keyslot : keyslots) {
    const std::string cost =
        keyslot.iterations != 0
            ? fmt::format("{} iterations", keyslot.iterations)
            : fmt::format("time {}, {} KiB, {} cpus", keyslot.time,
                          keyslot.memory_kib, keyslot.cpus);
    constexpr std::array kPriorities = {", only if named", "", ", preferred"};
    AddLine(fmt::format("{}: {}, {}, key material at byte {}{}", keyslot.index,
                        Printable(keyslot.kdf), cost,
                        keyslot.key_material_offset,
                        kPriorities.at(keyslot.priority)));
  }
  --depth_;
}

void InfoText::AddSnapshots(const std::vector<SnapshotInfo>& snapshots) {
  if (snapshots.empty()) return;
  AddLine("snapshots:");
  ++depth_;
  AddSnapshotTable(snapshots);
  --depth_;
}

void InfoText::AddSnapshotTable(const std::vector<SnapshotInfo>& snapshots) {
  if (snapshots.empty()) return;
  size_t id_width = std::string_view("ID").size();
  size_t name_width = std::string_view("NAME").size();
  for (const SnapshotInfo& snapshot : snapshots) {
    id_width = std::max(id_width, CountCharacters(Shortened(snapshot.id)));
    name_width =
        std::max(name_width, CountCharacters(Shortened(snapshot.name)));
  }
  const auto add_row = [&](std::string_view id, std::string_view name,
                           std::string_view date, std::string_view size) {
    AddLine(fmt::format("{:<{}}  {:<{}}  {:<20}  {}", id, id_width, name,
                        name_width, date, size));
  };
  add_row("ID", "NAME", "DATE", "SIZE");
  for (const SnapshotInfo& snapshot : snapshots) {
    add_row(Shortened(snapshot.id), Shortened(snapshot.name),
            FormatUtcDate(snapshot.date_seconds),
            FormatByteSize(snapshot.virtual_size));
  }
}

void InfoText::AddBacking(const ImageInfo& info) {
  if (info.qcow2 && !info.qcow2->backing_file.empty()) {
    const std::string& format = info.qcow2->backing_format;
    AddFact("backing",
            fmt::format(
                "{}{}", Printable(info.qcow2->backing_file),
                format.empty() ? "" : fmt::format(" ({})", Printable(format))));
  }
  ++depth_;
  if (info.backing) AddImage(*info.backing);
  if (!info.backing_error.empty()) {
    AddLine(fmt::format("not looked into: {}", Printable(info.backing_error)));
  }
  --depth_;
}

}  // namespace

std::string FormatSnapshotsAsText(const std::vector<SnapshotInfo>& snapshots) {
  InfoText text;
  text.AddSnapshotTable(snapshots);
  return text.Take();
}

std::string FormatInfoAsText(const ImageInfo& info) {
  InfoText text;
  text.AddImage(info);
  return text.Take();
}

}  // namespace pellucid::cli
