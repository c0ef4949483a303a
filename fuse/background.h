#ifndef PELLUCID_FUSE_BACKGROUND_H_
#define PELLUCID_FUSE_BACKGROUND_H_

#include <functional>

namespace pellucid::fuse {

// Runs `serve` in a child process that outlives the caller's: both return (or
// throw) from here, each to end its own process.
//
// The child returns what `serve` returns and throws what it throws. It keeps
// the terminal until `serve` calls the function that it is given, which says
// that the child is ready: from then on the child has no terminal, its standard
// streams are /dev/null and its working directory is /. The parent returns 0
// as soon as the child is ready, or the child's exit code if it ends earlier;
// it throws Error if a signal ends it.
//
// Call before starting threads and before holding secrets: neither survives a
// fork. Throws IoError if there is no more process to have.
int RunInBackground(
    const std::function<int(const std::function<void()>& on_ready)>& serve);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_BACKGROUND_H_
