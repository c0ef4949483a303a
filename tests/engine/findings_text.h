#ifndef PELLUCID_TESTS_ENGINE_FINDINGS_TEXT_H_
#define PELLUCID_TESTS_ENGINE_FINDINGS_TEXT_H_

#include <string>

#include "engine/findings.h"

namespace pellucid {

// A line each.
inline std::string TextsOf(const Findings& findings) {
  std::string texts;
  for (const Finding& finding : findings.list()) texts += finding.text + "\n";
  return texts;
}

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_FINDINGS_TEXT_H_
