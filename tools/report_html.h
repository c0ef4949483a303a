#ifndef PELLUCID_TOOLS_REPORT_HTML_H_
#define PELLUCID_TOOLS_REPORT_HTML_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace pellucid::cli {

// A report (docs/report-json.md) as one page that needs nothing else: no
// network, no script. HTML that is XML as well. Every value of `report` is in
// it, in an element whose attribute data-field is its JSON pointer (RFC 6901)
// and whose text begins with it; objects with "cells" are pictures. Text in
// `report` may be any bytes.
std::string FormatReportAsHtml(const nlohmann::ordered_json& report);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_REPORT_HTML_H_
