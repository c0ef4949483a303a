#include "fuse/confinement.h"

#include <asm/termbits.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <string_view>
#include <system_error>

#include "engine/errors.h"

namespace pellucid::fuse {
namespace {

[[noreturn]] void ThrowNoSandbox(std::string_view what, int error) {
  throw Error(ExitCode::kFailure,
              fmt::format("cannot confine the process: {}: {}; --no-sandbox "
                          "runs it without",
                          what, std::generic_category().message(error)));
}

void CheckSeccomp(const char* what, int result) {
  if (result < 0) ThrowNoSandbox(what, -result);
}

// What strace(1) shows of mounts and commands of every kind (docs/sandbox.md),
// and what the same code may ask for on another day: a clock where the kernel's
// page has none, memory that grows. Those of every request of a mount stand
// first.
constexpr std::array kAllowed = {
    // What is open.
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
    SCMP_SYS(sync_file_range),
    SCMP_SYS(ftruncate),
    SCMP_SYS(fadvise64),
    SCMP_SYS(fstat),
    SCMP_SYS(close),
    SCMP_SYS(dup),
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
    SCMP_SYS(pipe2),
    SCMP_SYS(getrandom),
    SCMP_SYS(getuid),
    SCMP_SYS(getgid),
};

}  // namespace

bool HasSandbox() {
#ifdef PELLUCID_SANITIZED
  return false;
#else
  return true;
#endif
}

void KeepCapabilities(std::initializer_list<int> kept) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  using Sets = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;
  Sets wanted = {};
  if (kept.size() != 0) {
    Sets had = {};
    if (syscall(SYS_capget, &header, had.data()) != 0) {
      ThrowNoSandbox("capget", errno);
    }
    for (const int capability : kept) {
      const auto word = static_cast<size_t>(CAP_TO_INDEX(capability));
      const uint32_t bit = CAP_TO_MASK(capability);
      wanted[word].permitted |= had[word].permitted & bit;
      wanted[word].effective |= had[word].effective & bit;
    }
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (syscall(SYS_capset, &header, wanted.data()) != 0) {
    ThrowNoSandbox("capset", errno);
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    ThrowNoSandbox("no_new_privs", errno);
  }
}

FileFence::FileFence(uint64_t given_up) {
  landlock_ruleset_attr handled = {};
  handled.handled_access_fs = given_up;
  rules_ = static_cast<int>(
      syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0));
  if (rules_ < 0 && errno != ENOSYS && errno != EOPNOTSUPP) {
    ThrowNoSandbox("landlock_create_ruleset", errno);
  }
}

FileFence::~FileFence() {
  if (rules_ >= 0) close(rules_);
}

void FileFence::Keep(const std::string& path, uint64_t rights) {
  if (rules_ < 0) return;
  const int fd = open(path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return;  // Not there, so nobody will open it.
  landlock_path_beneath_attr rule = {};
  rule.allowed_access = rights;
  rule.parent_fd = fd;
  const auto result = syscall(SYS_landlock_add_rule, rules_,
                              LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
  const int error = errno;
  close(fd);
  // EBADFD: of the kernel itself, such as a pipe, and never given up.
  if (result != 0 && error != EBADFD) {
    ThrowNoSandbox("landlock_add_rule", error);
  }
}

void FileFence::Enter() {
  if (rules_ < 0) return;
  if (syscall(SYS_landlock_restrict_self, rules_, 0) != 0) {
    ThrowNoSandbox("landlock_restrict_self", errno);
  }
}

SystemCallFilter::SystemCallFilter()
    : context_(seccomp_init(SCMP_ACT_KILL_PROCESS)) {
  if (context_ == nullptr) ThrowNoSandbox("seccomp_init", ENOMEM);
  const auto set = [&](scmp_filter_attr attribute, uint32_t value) {
    CheckSeccomp("seccomp_attr_set",
                 seccomp_attr_set(context_, attribute, value));
  };
  set(SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  set(SCMP_FLTATR_CTL_TSYNC, 1);
  set(SCMP_FLTATR_CTL_OPTIMIZE, 2);  // A tree: no call waits for many.
  for (const int call : kAllowed) Allow(call);
  // No new code.
  AllowIf(SCMP_SYS(mmap), Without(2, PROT_EXEC));
  AllowIf(SCMP_SYS(mprotect), Without(2, PROT_EXEC));
  // Threads, no processes. glibc takes clone() where it has no clone3(), whose
  // flags cannot be seen from here.
  AllowIf(SCMP_SYS(clone), With(0, CLONE_THREAD));
  Fail(SCMP_SYS(clone3), ENOSYS);
  // Signals to nobody else.
  const auto self = static_cast<uint64_t>(getpid());
  AllowIf(SCMP_SYS(kill), Equal(0, self));
  AllowIf(SCMP_SYS(tgkill), Equal(0, self));
  AllowIf(SCMP_SYS(prlimit64), Equal(2, 0));  // No new limit.
  for (const int command : {F_GETFD, F_SETFD, F_GETFL}) {
    AllowIf(SCMP_SYS(fcntl), Equal(1, static_cast<uint64_t>(command)));
  }
  for (const uint64_t request : {uint64_t{TCGETS}, uint64_t{TCGETS2}}) {
    AllowIf(SCMP_SYS(ioctl), Equal(1, request));  // isatty(3)
  }
}

SystemCallFilter::~SystemCallFilter() { seccomp_release(context_); }

void SystemCallFilter::Allow(int call) {
  CheckSeccomp(
      "seccomp_rule_add",
      seccomp_rule_add_array(context_, SCMP_ACT_ALLOW, call, 0, nullptr));
}

void SystemCallFilter::AllowIf(int call, const scmp_arg_cmp& argument) {
  CheckSeccomp(
      "seccomp_rule_add",
      seccomp_rule_add_array(context_, SCMP_ACT_ALLOW, call, 1, &argument));
}

void SystemCallFilter::Fail(int call, uint16_t error) {
  CheckSeccomp("seccomp_rule_add",
               seccomp_rule_add_array(context_, SCMP_ACT_ERRNO(error), call, 0,
                                      nullptr));
}

void SystemCallFilter::Enter() {
  CheckSeccomp("seccomp_load", seccomp_load(context_));
}

scmp_arg_cmp Without(unsigned index, uint64_t bits) {
  return {index, SCMP_CMP_MASKED_EQ, bits, 0};
}

scmp_arg_cmp With(unsigned index, uint64_t bits) {
  return {index, SCMP_CMP_MASKED_EQ, bits, bits};
}

scmp_arg_cmp Equal(unsigned index, uint64_t value) {
  return {index, SCMP_CMP_EQ, value, 0};
}

}  // namespace pellucid::fuse
