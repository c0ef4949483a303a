#include "tools/lister/fence.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace pellucid::lister {
namespace {

bool SetLimit(__rlimit_resource resource, uint64_t soft, uint64_t hard) {
  const rlimit limit = {.rlim_cur = soft, .rlim_max = hard};
  return setrlimit(resource, &limit) == 0;
}

// If memory runs out, the listing ends rather than the report. Not every
// container has the file, and nothing depends on it.
void OfferToTheOutOfMemoryKiller() {
  const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  constexpr std::string_view kFirst = "1000";
  [[maybe_unused]] const auto written = write(fd, kFirst.data(), kFirst.size());
  close(fd);
}

#ifndef PELLUCID_SANITIZED
// What strace(1) shows of a listing, and what malloc(3) and abort(3) may ask
// for on another day. recvfrom() and sendto() go over the socket that is open.
constexpr std::array kAllowed = {
    SCMP_SYS(sendto),
    SCMP_SYS(recvfrom),
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(getrandom),
    SCMP_SYS(fstat),
    SCMP_SYS(restart_syscall),
    // To /dev/null: what libtsk and the C library complain of.
    SCMP_SYS(write),
    SCMP_SYS(writev),
};

bool AllowSystemCalls(scmp_filter_ctx filter) {
  const auto allow_if = [&](int call, const scmp_arg_cmp& argument) {
    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 1, &argument) ==
           0;
  };
  for (const int call : kAllowed) {
    if (seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 0, nullptr) != 0) {
      return false;
    }
  }
  // No new code, and signals to nobody else.
  const scmp_arg_cmp no_code = {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0};
  const scmp_arg_cmp to_self = {0, SCMP_CMP_EQ, static_cast<uint64_t>(getpid()),
                                0};
  return allow_if(SCMP_SYS(mmap), no_code) &&
         allow_if(SCMP_SYS(mprotect), no_code) &&
         allow_if(SCMP_SYS(tgkill), to_self) && seccomp_load(filter) == 0;
}

bool ConfineToSystemCalls() {
  const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (filter == nullptr) return false;
  const bool is_loaded = AllowSystemCalls(filter);
  seccomp_release(filter);
  return is_loaded;
}
#endif

}  // namespace

bool GiveUpRights() {
  OfferToTheOutOfMemoryKiller();
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none = {};
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  return syscall(SYS_capset, &header, none.data()) == 0 &&
         prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && SetLimit(RLIMIT_CORE, 0, 0);
}

bool EnterFence(uint64_t cpu_seconds, [[maybe_unused]] uint64_t memory) {
  // SIGXCPU first, which tells what it was; then SIGKILL.
  if (!SetLimit(RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)) return false;
#ifdef PELLUCID_SANITIZED
  return true;
#else
  if (memory != 0 && !SetLimit(RLIMIT_AS, memory, memory)) return false;
  return SetLimit(RLIMIT_FSIZE, 0, 0) && ConfineToSystemCalls();
#endif
}

}  // namespace pellucid::lister
