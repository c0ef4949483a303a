#include "tools/command_sandbox.h"

#include <asm/termbits.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/keyctl.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#include <array>
#include <boost/program_options/value_semantic.hpp>
#include <cerrno>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <set>
#include <system_error>
#include <utility>

#include "engine/host_file_rules.h"
#include "fuse/confinement.h"

namespace pellucid::cli {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

// Files are read wherever they are: key files, and what an image names.
constexpr uint64_t kGivenUp =
    fuse::FileFence::kAll &
    ~uint64_t{LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR};
constexpr uint64_t kWriting = LANDLOCK_ACCESS_FS_WRITE_FILE;
constexpr uint64_t kMakingInFolder =
    kWriting | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE;

// What the commands take besides what the filter has by itself.
constexpr std::array kAllowed = {
    // Finding files, and what is known of them.
    SCMP_SYS(newfstatat),
    SCMP_SYS(statx),
    SCMP_SYS(stat),
    SCMP_SYS(lstat),
    SCMP_SYS(fstatfs),
    SCMP_SYS(access),
    SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(getcwd),
    SCMP_SYS(getdents64),
    // The second part of the sandbox.
    SCMP_SYS(landlock_restrict_self),
    SCMP_SYS(capget),
    SCMP_SYS(capset),
};

// For a file that takes another's place, or was made in vain.
constexpr std::array kAllowedToMakers = {
    SCMP_SYS(rename), SCMP_SYS(renameat), SCMP_SYS(renameat2),
    SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(fchown),
    SCMP_SYS(fchmod),
};

constexpr std::array kAllowedToParents = {SCMP_SYS(sendto), SCMP_SYS(recvfrom),
                                          SCMP_SYS(shutdown), SCMP_SYS(wait4)};

constexpr std::array<uint64_t, 4> kFcntlCommands = {
    F_OFD_SETLK, F_OFD_GETLK, F_DUPFD_CLOEXEC, F_SETPIPE_SZ};

constexpr std::array<uint64_t, 9> kIoctlRequests = {
    TIOCGWINSZ,  // The width of a terminal; then, whether it shows what is
                 // typed.
    TCSETS, TCSETSW, TCSETSF, TCSETS2, TCSETSW2, TCSETSF2, BLKGETSIZE64,
    BLKZEROOUT};

// What root needs to read and replace the files of others, and for memory that
// is not swapped.
constexpr std::initializer_list<int> kCapabilities = {
    CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_IPC_LOCK};
// And to find out which program keeps an image locked.
constexpr std::initializer_list<int> kCapabilitiesWhenOpening = {
    CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH,
    CAP_FOWNER, CAP_IPC_LOCK,     CAP_SYS_PTRACE};

void ConfineToSystemCalls(bool makes_files, bool talks_to_child) {
  fuse::SystemCallFilter filter;
  for (const int call : kAllowed) filter.Allow(call);
  if (makes_files) {
    for (const int call : kAllowedToMakers) filter.Allow(call);
    // remove(3) tries it where unlink(2) is refused.
    filter.Fail(SCMP_SYS(rmdir), ENOTDIR);
  }
  if (talks_to_child) {
    for (const int call : kAllowedToParents) filter.Allow(call);
  }
  filter.AllowIf(SCMP_SYS(openat),
                 fuse::Without(2, O_TRUNC | (O_TMPFILE & ~O_DIRECTORY)));
  for (const uint64_t command : kFcntlCommands) {
    filter.AllowIf(SCMP_SYS(fcntl), fuse::Equal(1, command));
  }
  for (const uint64_t request : kIoctlRequests) {
    filter.AllowIf(SCMP_SYS(ioctl), fuse::Equal(1, request));
  }
  for (const int option : {PR_CAP_AMBIENT, PR_SET_NO_NEW_PRIVS}) {
    filter.AllowIf(SCMP_SYS(prctl),
                   fuse::Equal(0, static_cast<uint64_t>(option)));
  }
  // A key that is there, and no program that gets it.
  filter.AllowIf(SCMP_SYS(request_key), fuse::Equal(2, 0));
  filter.AllowIf(SCMP_SYS(keyctl), fuse::Equal(0, KEYCTL_READ));
  filter.Enter();
}

// Where the files are that an image of this name can call its data file
// (engine/image_layers).
std::set<fs::path> FoldersOf(const fs::path& image) {
  std::error_code ignored;
  std::set<fs::path> folders;
  for (const fs::path& file :
       {fs::absolute(image, ignored), fs::canonical(image, ignored)}) {
    if (!file.empty()) folders.insert(file.parent_path());
  }
  return folders;
}

}  // namespace

void CommandSandbox::AddTo(po::options_description& options) {
  options.add_options()  //
      ("no-sandbox", po::bool_switch(&unwanted_),
       "let the process keep all of its rights, for debugging");
}

void CommandSandbox::MayWrite(const fs::path& file) { kept_[file] |= kWriting; }

void CommandSandbox::MayMake(const fs::path& file) {
  if (file.empty()) return;
  std::error_code ignored;
  if (fs::exists(file, ignored) && !fs::is_regular_file(file, ignored)) {
    return MayWrite(file);
  }
  makes_files_ = true;
  // With the folder of a file that a link leads to.
  const fs::path name = fs::absolute(file, ignored);
  for (const fs::path& made : {name, fs::weakly_canonical(name, ignored)}) {
    kept_[made.parent_path()] |= kMakingInFolder;
  }
}

void CommandSandbox::MayWriteImage(const OpenOptions& options) {
  for (const fs::path& file :
       {options.image, options.header, options.data_file}) {
    if (file.empty()) continue;
    MayWrite(file);
    for (const fs::path& folder : FoldersOf(file)) {
      std::error_code ignored;
      for (fs::directory_iterator beside(folder, ignored), end; beside != end;
           beside.increment(ignored)) {
        const bool is_hidden =
            beside->path().filename().native().starts_with('.');
        if (!is_hidden &&
            fs::is_regular_file(beside->symlink_status(ignored))) {
          MayWrite(beside->path());
        }
      }
    }
  }
}

void CommandSandbox::Enter() const {
  if (unwanted_ || !fuse::HasSandbox()) return;
  const auto fence = std::make_shared<fuse::FileFence>(kGivenUp);
  fence->Keep("/dev/tty", kWriting);  // Where passphrases are asked for.
  for (const auto& [path, rights] : kept_) fence->Keep(path.native(), rights);
  fuse::KeepCapabilities(kCapabilitiesWhenOpening);
  ConfineToSystemCalls(makes_files_, talks_to_child_);
  // Behind the lock of the first image: who is in its way is found by a look at
  // all processes, which Landlock forbids.
  HostFileRules rules = GetHostFileRules();
  rules.on_open = [fence, once = std::make_shared<std::once_flag>(),
                   before = rules.on_open](const OpenedHostFile& opened) {
    if (opened.use != HostFileUse::kSecret) {
      std::call_once(*once, [&] {
        fence->Enter();
        fuse::KeepCapabilities(kCapabilities);
      });
    }
    if (before) before(opened);
  };
  SetHostFileRules(std::move(rules));
}

}  // namespace pellucid::cli
