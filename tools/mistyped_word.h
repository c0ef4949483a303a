#ifndef PELLUCID_TOOLS_MISTYPED_WORD_H_
#define PELLUCID_TOOLS_MISTYPED_WORD_H_

#include <span>
#include <string_view>

namespace pellucid::cli {

// The one of `words` that `word` is most likely meant to be: at most two
// letters inserted, left out, replaced or swapped with their neighbour. Empty
// if there is none.
std::string_view NearestWord(std::string_view word,
                             std::span<const std::string_view> words);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MISTYPED_WORD_H_
