#include "tools/mistyped_word.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pellucid::cli {
namespace {

constexpr size_t kMaxDistance = 2;

// Optimal string alignment distance: edits between `a` and `b`, a swap of two
// neighbours being one.
size_t EditDistance(std::string_view a, std::string_view b) {
  // distance[i][j] belongs to the first i letters of a and the first j of b.
  std::vector<std::vector<size_t>> distance(a.size() + 1,
                                            std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) distance[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) distance[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = a[i - 1] == b[j - 1] ? 0 : 1;
      distance[i][j] = std::min({distance[i - 1][j] + 1, distance[i][j - 1] + 1,
                                 distance[i - 1][j - 1] + replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        distance[i][j] = std::min(distance[i][j], distance[i - 2][j - 2] + 1);
      }
    }
  }
  return distance[a.size()][b.size()];
}

}  // namespace

std::string_view NearestWord(std::string_view word,
                             std::span<const std::string_view> words) {
  std::string_view nearest;
  size_t nearest_distance = kMaxDistance + 1;
  for (const std::string_view candidate : words) {
    const size_t length_difference = std::max(word.size(), candidate.size()) -
                                     std::min(word.size(), candidate.size());
    if (length_difference > kMaxDistance) continue;
    const size_t distance = EditDistance(word, candidate);
    if (distance < nearest_distance) {
      nearest = candidate;
      nearest_distance = distance;
    }
  }
  return nearest;
}

}  // namespace pellucid::cli
