#include "tools/xml_text.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "engine/printable.h"

namespace pellucid::cli {

std::string XmlText(const std::string& text) {
  using Json = nlohmann::json;
  const std::string utf8 =
      Json::parse(
          Json(text).dump(-1, ' ', false, Json::error_handler_t::replace))
          .get<std::string>();
  std::string xml;
  const std::string printable = Printable(utf8);
  for (size_t i = 0; i < printable.size(); ++i) {
    const char c = printable[i];
    const std::string_view next = std::string_view(printable).substr(i, 3);
    if (next == "\xef\xbf\xbe" || next == "\xef\xbf\xbf") {
      xml += '?';
      i += 2;
      continue;
    }
    switch (c) {
      case '&':
        xml += "&amp;";
        break;
      case '<':
        xml += "&lt;";
        break;
      case '>':
        xml += "&gt;";
        break;
      case '"':
        xml += "&quot;";
        break;
      default:
        xml += c;
    }
  }
  return xml;
}

}  // namespace pellucid::cli
