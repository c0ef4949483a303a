#include "fuse/sandbox.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>

#include <array>
#include <cstdint>

#include "fuse/confinement.h"

namespace pellucid::fuse {
namespace {

// What serving takes besides what the filter has by itself.
constexpr std::array kAllowed = {
    SCMP_SYS(eventfd2),
    SCMP_SYS(signalfd4),
    // The background leaves its terminal.
    SCMP_SYS(setsid),
    SCMP_SYS(chdir),
    SCMP_SYS(dup2),
    SCMP_SYS(dup3),
    // The attendant, and the report at the end: sockets that are there already.
    SCMP_SYS(sendto),
    SCMP_SYS(recvfrom),
    SCMP_SYS(accept4),
    SCMP_SYS(wait4),
};

void ConfineToFiles() {
  FileFence fence(FileFence::kAll);
  // libfuse opens the first for each of its threads, the background the other.
  for (const char* file : {"/dev/fuse", "/dev/null"}) {
    fence.Keep(file,
               LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE);
  }
  fence.Enter();
}

void ConfineToSystemCalls(SandboxLeaves leaves) {
  SystemCallFilter filter;
  for (const int call : kAllowed) filter.Allow(call);
  if (leaves == SandboxLeaves::kLookingAtNames) {
    filter.Allow(SCMP_SYS(newfstatat));
  } else {
    // By a descriptor, which is how glibc spells fstat(3).
    filter.AllowIf(SCMP_SYS(newfstatat), With(3, AT_EMPTY_PATH));
  }
  // Nothing new in the file system. Which files, Landlock says.
  filter.AllowIf(SCMP_SYS(openat),
                 Without(2, O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY)));
  filter.AllowIf(SCMP_SYS(ioctl), Equal(1, uint64_t{FUSE_DEV_IOC_CLONE}));
  filter.Enter();
}

}  // namespace

void EnterSandbox(SandboxLeaves leaves) {
  if (!HasSandbox()) return;
  if (leaves == SandboxLeaves::kLookingAtNames) {
    KeepCapabilities({CAP_DAC_READ_SEARCH});  // Into folders of others.
  } else {
    KeepCapabilities({});
  }
  ConfineToFiles();
  ConfineToSystemCalls(leaves);
}

}  // namespace pellucid::fuse
