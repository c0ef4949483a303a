#ifndef PELLUCID_FUSE_READ_AHEAD_H_
#define PELLUCID_FUSE_READ_AHEAD_H_

#include <filesystem>

namespace pellucid::fuse {

// How far the kernel reads ahead of somebody who reads our file from one end to
// the other, in KiB: two requests of the greatest size that FUSE has by default
// here, so that one is decrypted while another is copied.
inline constexpr unsigned kReadAheadKib = 512;

// Has the kernel read ahead that far in what is mounted at `mountpoint`, if it
// is still set to its default of 128 KiB. The file system itself cannot ask for
// more than that (fuse_init_out.max_readahead is cut), only the administrator
// can; so this has an effect only for root, in a system whose /sys may be
// written. To be called after the answer to INIT, which sets it as well. Asks
// no mounted file system.
void RaiseReadAhead(const std::filesystem::path& mountpoint) noexcept;

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_READ_AHEAD_H_
