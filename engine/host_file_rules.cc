#include "engine/host_file_rules.h"

#include <utility>

namespace pellucid {
namespace {

HostFileRules& Rules() {
  static HostFileRules rules;
  return rules;
}

}  // namespace

void SetHostFileRules(HostFileRules rules) { Rules() = std::move(rules); }

const HostFileRules& GetHostFileRules() { return Rules(); }

bool MustKeepEvidence() { return Rules().keep_evidence; }

void ReportOpenedHostFile(const OpenedHostFile& opened) {
  if (Rules().on_open) Rules().on_open(opened);
}

}  // namespace pellucid
