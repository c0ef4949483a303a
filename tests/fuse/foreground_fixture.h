#ifndef PELLUCID_TESTS_FUSE_FOREGROUND_FIXTURE_H_
#define PELLUCID_TESTS_FUSE_FOREGROUND_FIXTURE_H_

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace pellucid::fuse {

// A `pellucid mount --foreground` whose process the test knows. What is left of
// it is killed and unmounted at the end.
class ForegroundMount {
 public:
  // `arguments` are those of the whole command, without mountpoint; messages go
  // to `log`. Returns when the mount is there; throws if it does not come.
  ForegroundMount(std::vector<std::string> arguments,
                  const std::filesystem::path& mountpoint,
                  const std::filesystem::path& log);
  ForegroundMount(const ForegroundMount&) = delete;
  ForegroundMount& operator=(const ForegroundMount&) = delete;
  ~ForegroundMount();

  pid_t pid() const { return pid_; }

  // Kills the server without a word and takes the dead mount away.
  void Kill();
  // Sends `signal` and gives the server's exit status, -1 if it stays.
  int End(int signal);
  // The same without a signal.
  int Await();

  // The most memory that the server had so far.
  uint64_t peak_bytes() const;

 private:
  const std::filesystem::path mountpoint_;
  pid_t pid_ = -1;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_TESTS_FUSE_FOREGROUND_FIXTURE_H_
