#ifndef PELLUCID_TOOLS_KEYSLOT_LIST_H_
#define PELLUCID_TOOLS_KEYSLOT_LIST_H_

#include <string>

#include "engine/image_info.h"

namespace pellucid::cli {

// The keyslots of a header as a table for people, with the tokens that refer to
// them.
std::string FormatKeyslotList(const LuksInfo& luks);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_KEYSLOT_LIST_H_
