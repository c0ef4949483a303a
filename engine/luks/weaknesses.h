#ifndef PELLUCID_ENGINE_LUKS_WEAKNESSES_H_
#define PELLUCID_ENGINE_LUKS_WEAKNESSES_H_

#include <string>
#include <vector>

#include "engine/image_info.h"

namespace pellucid::luks {

// What makes the encryption of a volume protect less than its user may think:
// ECB, and keyslots whose passphrases are cheap to guess. (A null cipher is
// refused altogether.) Texts for people, without a file name.
std::vector<std::string> WeaknessesOf(const LuksInfo& info);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_WEAKNESSES_H_
