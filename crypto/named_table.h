#ifndef PELLUCID_CRYPTO_NAMED_TABLE_H_
#define PELLUCID_CRYPTO_NAMED_TABLE_H_

#include <fmt/format.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "crypto/unsupported_algorithm.h"

namespace pellucid::crypto {

// The entry of `table` whose `name` is this. Throws UnsupportedAlgorithm that
// says what kind of algorithm is missing and which there are.
template <class Entry, size_t size>
const Entry& FindByName(const Entry (&table)[size], std::string_view kind,
                        std::string_view name) {
  std::string supported;
  for (const Entry& entry : table) {
    if (entry.name == name) return entry;
    if (!supported.empty()) supported += ", ";
    supported += entry.name;
  }
  throw UnsupportedAlgorithm(fmt::format(
      "{} \"{}\" is not supported (supported: {})", kind, name, supported));
}

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_NAMED_TABLE_H_
