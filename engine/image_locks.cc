#include "engine/image_locks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <span>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "engine/errors.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;

// QEMU's permissions, as numbers within both groups of lock bytes.
enum Permission : int {
  kConsistentRead = 0,
  kWrite = 1,
  kWriteUnchanged = 2,
  kResize = 3,
};

constexpr off_t HeldByte(Permission permission) { return 100 + permission; }
constexpr off_t NotSharedByte(Permission permission) {
  return 200 + permission;
}

struct flock ByteLock(short type, off_t byte) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

// False if somebody holds an exclusive lock there.
bool TakeShared(int fd, off_t byte) {
  struct flock lock = ByteLock(F_RDLCK, byte);
  return fcntl(fd, F_OFD_SETLK, &lock) == 0 ||
         (errno != EAGAIN && errno != EACCES);
}

bool IsLockedByOthers(int fd, off_t byte) {
  struct flock lock = ByteLock(F_WRLCK, byte);
  return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

void ReleaseAll(int fd) {
  struct flock lock = ByteLock(F_UNLCK, 0);
  lock.l_len = 0;
  fcntl(fd, F_OFD_SETLK, &lock);
}

// Does a line of /proc/PID/fdinfo/FD say that the descriptor locks `byte`?
// "lock:  1: OFDLCK ADVISORY READ -1 fe:00:1234 101 101"
bool LocksByte(const std::string& line, off_t byte) {
  if (!line.starts_with("lock:")) return false;
  std::istringstream words(line);
  std::string word, start, end;
  while (words >> word) {
    start = end;
    end = word;
  }
  const auto number = [](const std::string& text, off_t if_not) {
    off_t value = if_not;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
  };
  return number(start, INT64_MAX) <= byte && byte <= number(end, INT64_MAX);
}

// The process that locks `byte` of the file, for people: "qemu-io (process
// 4711)"; empty if /proc does not show it, such as for another user's.
std::string FindHolder(int fd, off_t byte) {
  struct stat ours;
  if (fstat(fd, &ours) != 0) return "";
  std::error_code ignored;
  const fs::directory_iterator end;
  for (fs::directory_iterator process("/proc", ignored); process != end;
       process.increment(ignored)) {
    const std::string pid = process->path().filename();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    if (pid == std::to_string(getpid())) continue;
    for (fs::directory_iterator descriptor(process->path() / "fd", ignored);
         descriptor != end; descriptor.increment(ignored)) {
      struct stat theirs;
      if (stat(descriptor->path().c_str(), &theirs) != 0) continue;
      if (theirs.st_dev != ours.st_dev || theirs.st_ino != ours.st_ino) {
        continue;
      }
      std::ifstream info(process->path() / "fdinfo" /
                         descriptor->path().filename());
      for (std::string line; std::getline(info, line);) {
        if (!LocksByte(line, byte)) continue;
        std::string name;
        std::getline(std::ifstream(process->path() / "comm"), name);
        return fmt::format("{} (process {})", name, pid);
      }
    }
  }
  return "";
}

// What an opener does, what it does not tolerate, and the remedy if that is in
// somebody's way.
struct LockRequest {
  std::span<const Permission> held;
  std::span<const Permission> not_shared;
  const char* remedy;
};

// A permission that somebody has, or does not share, for people.
const char* Meaning(off_t byte) {
  switch (byte) {
    case HeldByte(kWrite):
      return "open for writing";
    case HeldByte(kResize):
      return "open for resizing";
    case NotSharedByte(kConsistentRead):
      return "not open to other readers";
    default:
      return "not open to writers while it is in use";
  }
}

// Does who locks `byte` put up with others that read?
bool ReadersMayJoin(off_t byte) {
  return byte > NotSharedByte(kConsistentRead);
}

// Throws ImageLocked if another's lock says no to `request`; releases ours.
void CheckForConflicts(int fd, const fs::path& file,
                       const LockRequest& request) {
  std::vector<off_t> bytes;
  for (const Permission p : request.not_shared) bytes.push_back(HeldByte(p));
  for (const Permission p : request.held) bytes.push_back(NotSharedByte(p));
  for (const off_t byte : bytes) {
    if (!IsLockedByOthers(fd, byte)) continue;
    ReleaseAll(fd);
    const std::string holder = FindHolder(fd, byte);
    throw ImageLocked(
        fmt::format("{}: the image is {} in {}; {}", file.native(),
                    Meaning(byte), holder.empty() ? "another program" : holder,
                    request.remedy),
        ReadersMayJoin(byte));
  }
}

// Takes every lock of `request`, then looks for what others hold against it.
void Lock(int fd, const fs::path& file, const LockRequest& request) {
  bool free = true;
  for (const Permission p : request.held) {
    free = TakeShared(fd, HeldByte(p)) && free;
  }
  for (const Permission p : request.not_shared) {
    free = TakeShared(fd, NotSharedByte(p)) && free;
  }
  CheckForConflicts(fd, file, request);
  if (free) return;
  ReleaseAll(fd);
  throw ImageLocked(fmt::format(
      "{}: another program holds an exclusive lock on the image; {}",
      file.native(), request.remedy));
}

constexpr std::array kReaderHolds = {kConsistentRead};
constexpr std::array kWriterHolds = {kConsistentRead, kWrite, kResize};
constexpr std::array kNeitherShares = {kWrite, kResize};

}  // namespace

void LockForReading(int fd, const fs::path& file) {
  Lock(fd, file,
       {.held = kReaderHolds,
        .not_shared = kNeitherShares,
        .remedy = "stop that, or read what is there now with --force-share"});
}

void LockForWriting(int fd, const fs::path& file) {
  Lock(fd, file,
       {.held = kWriterHolds,
        .not_shared = kNeitherShares,
        .remedy = "stop that first"});
}

void LockForForcedReading(int fd) { TakeShared(fd, HeldByte(kConsistentRead)); }

}  // namespace pellucid
