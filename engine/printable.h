#ifndef PELLUCID_ENGINE_PRINTABLE_H_
#define PELLUCID_ENGINE_PRINTABLE_H_

#include <string>
#include <string_view>

namespace pellucid {

// `text` with control characters (of C0, DEL and C1 in UTF-8) written as \xNN.
// Names come from images, and error texts name them: whatever goes to a
// terminal or a log goes through this, so that no image drives the terminal.
// Safe to call from many threads.
std::string Printable(std::string_view text);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_PRINTABLE_H_
