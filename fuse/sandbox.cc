#include "fuse/sandbox.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/capability.h>
#include <linux/fuse.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <string_view>
#include <system_error>

#include "engine/errors.h"

namespace pellucid::fuse {
namespace {

[[noreturn]] void ThrowNoSandbox(std::string_view what, int error) {
  throw Error(ExitCode::kFailure,
              fmt::format("cannot confine the serving process: {}: {}; "
                          "--no-sandbox serves without",
                          what, std::generic_category().message(error)));
}

void DropCapabilities() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none = {};
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (syscall(SYS_capset, &header, none.data()) != 0) {
    ThrowNoSandbox("capset", errno);
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    ThrowNoSandbox("no_new_privs", errno);
  }
}

void AllowFile(int rules, const char* file) {
  const int fd = open(file, O_PATH | O_CLOEXEC);
  if (fd < 0) return;  // Not there, so nobody will open it.
  landlock_path_beneath_attr rule = {};
  rule.allowed_access =
      LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;
  rule.parent_fd = fd;
  const auto result = syscall(SYS_landlock_add_rule, rules,
                              LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
  const int error = errno;
  close(fd);
  if (result != 0) ThrowNoSandbox("landlock_add_rule", error);
}

// Where the kernel has it; the list of system calls stands by itself.
void ConfineToFiles() {
  // All rights of the first version; later ones only add to them.
  constexpr uint64_t kAll = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
  landlock_ruleset_attr handled = {};
  handled.handled_access_fs = kAll;
  const auto rules = static_cast<int>(
      syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0));
  if (rules < 0 && (errno == ENOSYS || errno == EOPNOTSUPP)) return;
  if (rules < 0) ThrowNoSandbox("landlock_create_ruleset", errno);
  // libfuse opens the first for each of its threads, the background the other.
  AllowFile(rules, "/dev/fuse");
  AllowFile(rules, "/dev/null");
  const auto result = syscall(SYS_landlock_restrict_self, rules, 0);
  const int error = errno;
  close(rules);
  if (result != 0) ThrowNoSandbox("landlock_restrict_self", error);
}

// What strace(1) shows of mounts of every kind (docs/sandbox.md), and what the
// same code may ask for on another day: a clock where the kernel's page has
// none, memory that grows. Those of every request stand first.
constexpr std::array kAllowed = {
    // A request, its answer, and the image.
    SCMP_SYS(read),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(futex),
    SCMP_SYS(write),
    SCMP_SYS(lseek),
    SCMP_SYS(fallocate),
    SCMP_SYS(fdatasync),
    SCMP_SYS(fsync),
    SCMP_SYS(ftruncate),
    SCMP_SYS(fadvise64),
    SCMP_SYS(fstat),
    SCMP_SYS(close),
    // Memory; mmap() and mprotect() are below.
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(mincore),
    SCMP_SYS(mlock),
    // Threads; clone() is below.
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(sysinfo),
    // Signals; kill() and tgkill() are below.
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigtimedwait),
    SCMP_SYS(restart_syscall),
    // Time and waiting.
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(poll),
    SCMP_SYS(eventfd2),
    SCMP_SYS(signalfd4),
    SCMP_SYS(getrandom),
    SCMP_SYS(getuid),
    SCMP_SYS(getgid),
    SCMP_SYS(dup),  // perror(3), by which libfuse tells of a lost connection.
    // The background leaves its terminal.
    SCMP_SYS(setsid),
    SCMP_SYS(chdir),
    SCMP_SYS(dup2),
    SCMP_SYS(dup3),
    // The attendant, and the report at the end: sockets that are there already.
    SCMP_SYS(sendto),
    SCMP_SYS(recvfrom),
    SCMP_SYS(accept4),
    SCMP_SYS(pipe2),
    SCMP_SYS(wait4),
};

class Filter {
 public:
  Filter() : context_(seccomp_init(SCMP_ACT_KILL_PROCESS)) {
    if (context_ == nullptr) ThrowNoSandbox("seccomp_init", ENOMEM);
  }
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;
  ~Filter() { seccomp_release(context_); }

  void Set(scmp_filter_attr attribute, uint32_t value) {
    Check("seccomp_attr_set", seccomp_attr_set(context_, attribute, value));
  }
  void Allow(int call) {
    Check("seccomp_rule_add",
          seccomp_rule_add_array(context_, SCMP_ACT_ALLOW, call, 0, nullptr));
  }
  void AllowIf(int call, const scmp_arg_cmp& argument) {
    Check("seccomp_rule_add",
          seccomp_rule_add_array(context_, SCMP_ACT_ALLOW, call, 1, &argument));
  }
  // The caller has another way, or may go without.
  void Fail(int call, uint16_t error) {
    Check("seccomp_rule_add",
          seccomp_rule_add_array(context_, SCMP_ACT_ERRNO(error), call, 0,
                                 nullptr));
  }
  void Load() { Check("seccomp_load", seccomp_load(context_)); }

 private:
  static void Check(const char* what, int result) {
    if (result < 0) ThrowNoSandbox(what, -result);
  }

  scmp_filter_ctx context_;
};

// Argument `index` has none of `bits`.
scmp_arg_cmp Without(unsigned index, uint64_t bits) {
  return {index, SCMP_CMP_MASKED_EQ, bits, 0};
}
scmp_arg_cmp With(unsigned index, uint64_t bits) {
  return {index, SCMP_CMP_MASKED_EQ, bits, bits};
}
scmp_arg_cmp Equal(unsigned index, uint64_t value) {
  return {index, SCMP_CMP_EQ, value, 0};
}

void ConfineToSystemCalls() {
  Filter filter;
  filter.Set(SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  filter.Set(SCMP_FLTATR_CTL_TSYNC, 1);
  filter.Set(SCMP_FLTATR_CTL_OPTIMIZE, 2);  // A tree: no call waits for many.
  for (const int call : kAllowed) filter.Allow(call);
  // By a descriptor, which is how glibc spells fstat(3).
  filter.AllowIf(SCMP_SYS(newfstatat), With(3, AT_EMPTY_PATH));
  // Nothing new in the file system. Which files, Landlock says.
  filter.AllowIf(SCMP_SYS(openat),
                 Without(2, O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY)));
  // No new code.
  filter.AllowIf(SCMP_SYS(mmap), Without(2, PROT_EXEC));
  filter.AllowIf(SCMP_SYS(mprotect), Without(2, PROT_EXEC));
  // Threads, no processes. glibc takes clone() where it has no clone3(), whose
  // flags cannot be seen from here.
  filter.AllowIf(SCMP_SYS(clone), With(0, CLONE_THREAD));
  filter.Fail(SCMP_SYS(clone3), ENOSYS);
  // Signals to nobody else.
  const auto self = static_cast<uint64_t>(getpid());
  filter.AllowIf(SCMP_SYS(kill), Equal(0, self));
  filter.AllowIf(SCMP_SYS(tgkill), Equal(0, self));
  filter.AllowIf(SCMP_SYS(prlimit64), Equal(2, 0));  // No new limit.
  for (const int command : {F_GETFD, F_SETFD, F_GETFL}) {
    filter.AllowIf(SCMP_SYS(fcntl), Equal(1, static_cast<uint64_t>(command)));
  }
  for (const uint64_t request :
       {uint64_t{FUSE_DEV_IOC_CLONE}, uint64_t{TCGETS}}) {  // isatty(3)
    filter.AllowIf(SCMP_SYS(ioctl), Equal(1, request));
  }
  filter.Load();
}

}  // namespace

bool HasSandbox() {
#ifdef PELLUCID_SANITIZED
  return false;
#else
  return true;
#endif
}

void EnterSandbox() {
  if (!HasSandbox()) return;
  DropCapabilities();
  ConfineToFiles();
  ConfineToSystemCalls();
}

}  // namespace pellucid::fuse
