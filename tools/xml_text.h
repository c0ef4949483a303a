#ifndef PELLUCID_TOOLS_XML_TEXT_H_
#define PELLUCID_TOOLS_XML_TEXT_H_

#include <string>

namespace pellucid::cli {

// Any bytes as text of XML and HTML, also within quotes: UTF-8 without control
// characters, and without U+FFFE and U+FFFF, which are none.
std::string XmlText(const std::string& text);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_XML_TEXT_H_
