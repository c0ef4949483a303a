#include "tools/report_html.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "tools/byte_size.h"
#include "tools/cell_picture.h"
#include "tools/xml_text.h"

namespace pellucid::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kHead = R"(<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en" xml:lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
<title>{0}</title>
<style>
body {{ font: 15px/1.45 sans-serif; color: #222; background: #fff; margin: 2em auto; max-width: 70em; padding: 0 1em }}
h1 {{ font-size: 1.5em; overflow-wrap: anywhere }}
h2 {{ font-size: 1.2em; border-bottom: 2px solid #2f6fde; margin-top: 2em }}
table {{ border-collapse: collapse; margin: .2em 0 }}
th, td {{ border: 1px solid #d5dae1; padding: .2em .6em; text-align: left; vertical-align: top; overflow-wrap: anywhere }}
th {{ background: #f3f5f8; font-weight: 600; overflow-wrap: normal }}
ul {{ margin: .2em 0; padding-left: 1.2em }}
svg {{ max-width: 100%; height: auto }}
.none {{ color: #888 }}
.finding {{ background: #fff4d6 }}
@media print {{ body {{ margin: 0; max-width: none }} }}
{1}
</style>
</head>
<body>
<h1>{0}</h1>
)";

// How a section is called, and what a reader has to know of it.
struct Section {
  std::string_view key;
  std::string_view title;
  std::string_view note;
};
constexpr std::array kSections = {
    Section{"report", "This report", ""},
    Section{"leaks", "Leaks",
            "What can be read in the file beside the disk that it shows."},
    Section{"image", "Image", ""},
    Section{"disk", "Partitions and file systems",
            "Empty if the image was not unlocked."},
    Section{"snapshot_disks", "Partitions and file systems of the snapshots",
            ""},
    Section{"file_listing", "Files of the file systems",
            "Listed in a file of its own, deleted ones as well."},
    Section{"allocation", "Allocation",
            "Which parts of the disk are stored, and where. A cell shows what "
            "most of its stored bytes are; paler cells have less of it."},
    Section{"plaintext", "Plaintext",
            "Blocks of 4096 bytes by what they look like: words of text, other "
            "structure, or random as compressed and encrypted data is."},
    Section{"files", "Files that were read", ""},
    Section{"warnings", "Warnings", ""},
    Section{"errors", "Errors", "What could not be read and is missing above."},
};

std::string NameOf(std::string_view key) {
  if (key == "id" || key == "uuid" || key == "luks" || key == "kdf") {
    std::string name;
    for (const char c : key) name += static_cast<char>(c - 'a' + 'A');
    return name;
  }
  std::string name(key);
  std::ranges::replace(name, '_', ' ');
  return XmlText(name);
}

bool IsByteCount(std::string_view key) {
  return key.ends_with("size") || key.ends_with("bytes") ||
         key.ends_with("offset");
}

bool IsScalar(const Json& json) {
  return !json.is_object() && !json.is_array();
}

std::string ScalarText(std::string_view key, const Json& json) {
  if (json.is_null()) return "none";
  if (json.is_boolean()) return json.get<bool>() ? "true" : "false";
  if (json.is_string()) return XmlText(json.get<std::string>());
  std::string text = json.dump();
  if (json.is_number_unsigned() && IsByteCount(key) &&
      json.get<uint64_t>() >= 1024) {
    text += fmt::format(" ({})", FormatByteSize(json.get<uint64_t>()));
  }
  return text;
}

class Page {
 public:
  explicit Page(const Json& report) : report_(report) {}

  std::string Format() {
    const std::string title = fmt::format(
        "Report on {}",
        XmlText(report_.value("/image/file"_json_pointer, std::string())));
    html_ = fmt::format(kHead, title, kCellPictureStyle);
    for (const Section& section : kSections) {
      if (!report_.contains(section.key)) continue;
      html_ += fmt::format("<section>\n<h2>{}</h2>\n", section.title);
      if (!section.note.empty()) {
        html_ += fmt::format("<p>{}</p>\n", section.note);
      }
      Add(section.key, fmt::format("/{}", section.key),
          report_.at(std::string(section.key)));
      html_ += "</section>\n";
    }
    html_ += "</body>\n</html>\n";
    return std::move(html_);
  }

 private:
  using Pointer = nlohmann::json_pointer<std::string>;

  void Add(std::string_view key, const std::string& pointer, const Json& json) {
    if (IsScalar(json)) {
      html_ += fmt::format(
          "<span data-field=\"{}\"{}>{}</span>", XmlText(pointer),
          json.is_null() ? " class=\"none\"" : "", ScalarText(key, json));
    } else if (json.empty()) {
      html_ += fmt::format("<span data-field=\"{}\" class=\"none\">none</span>",
                           XmlText(pointer));
    } else if (json.is_object()) {
      AddObject(pointer, json);
    } else if (std::ranges::all_of(json, IsScalar)) {
      AddList(key, pointer, json);
    } else {
      AddTable(pointer, json);
    }
  }

  void AddObject(const std::string& pointer, const Json& json) {
    const bool is_picture = json.contains("cells");
    html_ += "<table>\n";
    for (const auto& [key, value] : json.items()) {
      if (is_picture && (key == "cells" || key == "fill")) continue;
      html_ += fmt::format("<tr><th scope=\"row\">{}</th><td>", NameOf(key));
      Add(key, Child(pointer, key), value);
      html_ += "</td></tr>\n";
    }
    html_ += "</table>\n";
    if (is_picture) AddPicture(pointer, json);
  }

  void AddList(std::string_view key, const std::string& pointer,
               const Json& json) {
    const bool is_finding = key == "findings" || key == "warnings";
    html_ += is_finding ? "<ul class=\"finding\">" : "<ul>";
    for (size_t i = 0; i < json.size(); ++i) {
      html_ += "<li>";
      Add(key, Child(pointer, std::to_string(i)), json[i]);
      html_ += "</li>";
    }
    html_ += "</ul>\n";
  }

  // A row for each object; columns are what any of them has.
  void AddTable(const std::string& pointer, const Json& json) {
    std::vector<std::string> columns;
    for (const Json& row : json) {
      for (const auto& [key, value] : row.items()) {
        if (std::ranges::find(columns, key) == columns.end()) {
          columns.push_back(key);
        }
      }
    }
    html_ += "<table>\n<tr>";
    for (const std::string& column : columns) {
      html_ += fmt::format("<th scope=\"col\">{}</th>", NameOf(column));
    }
    html_ += "</tr>\n";
    for (size_t i = 0; i < json.size(); ++i) {
      html_ += "<tr>";
      for (const std::string& column : columns) {
        html_ += "<td>";
        const auto value = json[i].find(column);
        if (value != json[i].end()) {
          Add(column, Child(Child(pointer, std::to_string(i)), column), *value);
        }
        html_ += "</td>";
      }
      html_ += "</tr>\n";
    }
    html_ += "</table>\n";
  }

  void AddPicture(const std::string& pointer, const Json& json) {
    CellPicture picture;
    picture.size = json.at("size");
    picture.columns = json.at("columns");
    picture.cell_bytes = json.at("cell_bytes");
    for (const Json& kind : json.at("kinds")) {
      picture.kinds.push_back({.name = kind.at("name"),
                               .colour = kind.at("colour"),
                               .bytes = kind.at("bytes")});
    }
    const std::string cells = json.at("cells");
    const std::string fill = json.at("fill");
    for (size_t i = 0; i < cells.size(); ++i) {
      picture.cells.push_back({.kind = static_cast<size_t>(cells[i] - '0'),
                               .fill = static_cast<unsigned>(fill[i] - '0')});
    }
    html_ += FormatCellsAsSvg(picture, NameOf(pointer.substr(1)));
  }

  static std::string Child(const std::string& pointer, const std::string& key) {
    return (Pointer(pointer) / key).to_string();
  }

  const Json& report_;
  std::string html_;
};

}  // namespace

std::string FormatReportAsHtml(const Json& report) {
  return Page(report).Format();
}

}  // namespace pellucid::cli
