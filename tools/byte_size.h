#ifndef PELLUCID_TOOLS_BYTE_SIZE_H_
#define PELLUCID_TOOLS_BYTE_SIZE_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace pellucid::cli {

// A number of bytes as people write it: "4096", "10M", "4KiB". The suffixes K,
// M, G, T, P and E, in either case, with or without "iB", are powers of 1024.
// Throws UsageError that names `option`.
uint64_t ParseByteSize(std::string_view option, std::string_view text);

// The other way, rounded: "512 bytes", "64 KiB", "1.5 GiB".
std::string FormatByteSize(uint64_t bytes);

// Both: "1.5 GiB (1610612736 bytes)"; below 1 KiB only "512 bytes".
std::string FormatExactByteSize(uint64_t bytes);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_BYTE_SIZE_H_
