#ifndef PELLUCID_FUSE_CONFINEMENT_H_
#define PELLUCID_FUSE_CONFINEMENT_H_

#include <linux/capability.h>
#include <linux/landlock.h>
#include <seccomp.h>

#include <cstdint>
#include <initializer_list>
#include <string>

// What sandboxes are built from (docs/sandbox.md): the kernel's means to give
// up rights for the rest of a process. Each throws Error if the kernel refuses.
namespace pellucid::fuse {

// False in a build with sanitizers, which need system calls of their own.
bool HasSandbox();

// Gives up all capabilities of this thread but those of `kept` that it has, and
// the chance to gain any by execve(2).
void KeepCapabilities(std::initializer_list<int> kept);

// The rights to files (LANDLOCK_ACCESS_FS_...) that a thread gives up, and the
// files that it keeps them for. What is open stays usable. Does nothing where
// the kernel has no Landlock.
class FileFence {
 public:
  // All rights that there are; newer kernels only add to them.
  static constexpr uint64_t kAll = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;

  explicit FileFence(uint64_t given_up);
  FileFence(const FileFence&) = delete;
  FileFence& operator=(const FileFence&) = delete;
  ~FileFence();

  // Keeps `rights` for `path`, or for all that is in it and below it if it is a
  // folder. Does nothing if there is no such file.
  void Keep(const std::string& path, uint64_t rights);

  // For this thread and those that it starts from now on.
  void Enter();

 private:
  int rules_ = -1;  // -1 without Landlock.
};

// The system calls that a process keeps; any other ends it with SIGSYS.
class SystemCallFilter {
 public:
  // Keeps what every code may do: work with what is open, memory, threads,
  // signals to itself, time. No new code, no processes.
  SystemCallFilter();
  SystemCallFilter(const SystemCallFilter&) = delete;
  SystemCallFilter& operator=(const SystemCallFilter&) = delete;
  ~SystemCallFilter();

  void Allow(int call);
  void AllowIf(int call, const scmp_arg_cmp& argument);
  // The caller has another way, or may go without.
  void Fail(int call, uint16_t error);

  // For all threads.
  void Enter();

 private:
  scmp_filter_ctx context_;
};

// Argument `index` of a system call has none of `bits`, all of them, or is
// `value`.
scmp_arg_cmp Without(unsigned index, uint64_t bits);
scmp_arg_cmp With(unsigned index, uint64_t bits);
scmp_arg_cmp Equal(unsigned index, uint64_t value);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_CONFINEMENT_H_
