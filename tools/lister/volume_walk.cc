#include "tools/lister/volume_walk.h"

#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <tsk/libtsk.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

#include "tools/lister/body_line.h"

namespace pellucid::lister {
namespace {

// What is read and walked; one for the process.
struct Volume {
  TSK_IMG_INFO image;  // First, since libtsk gives it back as this.
  std::string_view prefix;
  uint64_t cpu_seconds;
};

void Send(Message message, std::string_view text = {}) {
  static std::array<char, sizeof(Message) + kMaxText> buffer;
  text = text.substr(0, kMaxText);
  std::memcpy(buffer.data(), &message, sizeof message);
  std::copy(text.begin(), text.end(), buffer.begin() + sizeof message);
  const size_t size = sizeof message + text.size();
  ssize_t sent;
  do {
    sent = send(kDataFd, buffer.data(), size, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent != static_cast<ssize_t>(size)) _exit(1);
}

bool ReadPiece(uint64_t offset, char* out, size_t length) {
  static std::array<char, sizeof(ReadAnswer) + kMaxRead> buffer;
  Send({.kind = MessageKind::kRead, .offset = offset, .length = length});
  ssize_t received;
  do {
    received = recv(kDataFd, buffer.data(), buffer.size(), 0);
  } while (received < 0 && errno == EINTR);
  if (received < static_cast<ssize_t>(sizeof(ReadAnswer))) _exit(1);
  ReadAnswer answer;
  std::memcpy(&answer, buffer.data(), sizeof answer);
  if (answer.is_ok == 0) return false;
  if (answer.is_hole != 0) {
    std::memset(out, 0, length);
    return true;
  }
  if (static_cast<size_t>(received) != sizeof answer + length) _exit(1);
  std::memcpy(out, buffer.data() + sizeof answer, length);
  return true;
}

// The kernel's own bound (RLIMIT_CPU) only sees what runs when its clock ticks,
// and so hardly ever a process that waits for bytes most of the time.
void EndIfTimeIsUp(uint64_t cpu_seconds) {
  timespec used = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  if (static_cast<uint64_t>(used.tv_sec) >= cpu_seconds) {
    static_cast<void>(raise(SIGXCPU));
  }
}

// For libtsk: gives how much was read, or -1.
ssize_t ReadImage(TSK_IMG_INFO* image, TSK_OFF_T offset, char* out,
                  size_t length) {
  EndIfTimeIsUp(reinterpret_cast<Volume*>(image)->cpu_seconds);
  if (offset < 0 || offset >= image->size) return -1;
  length = std::min(length, static_cast<size_t>(image->size - offset));
  for (size_t done = 0; done < length;) {
    const size_t piece = std::min(length - done, kMaxRead);
    if (!ReadPiece(static_cast<uint64_t>(offset) + done, out + done, piece)) {
      tsk_error_reset();
      tsk_error_set_errno(TSK_ERR_IMG_READ);
      tsk_error_set_errstr("the image could not be read");
      return -1;
    }
    done += piece;
  }
  return static_cast<ssize_t>(length);
}

void CloseImage(TSK_IMG_INFO* /*image*/) {}
void PrintImage(TSK_IMG_INFO* /*image*/, FILE* /*file*/) {}

std::string LastError() {
  const char* text = tsk_error_get();
  return text != nullptr ? text : "libtsk does not say why";
}

void SendEntry(const TSK_FS_FILE& file, const char* folder,
               const TSK_FS_ATTR* attribute, std::string_view prefix) {
  const bool is_deleted = (file.name->flags & TSK_FS_NAME_FLAG_UNALLOC) != 0;
  Send({.kind = MessageKind::kEntry, .is_deleted = is_deleted},
       FormatBodyLine(file, folder, attribute, prefix));
}

// A file of NTFS has a line for each of its streams, and one for the times that
// its name has; a folder has one for its index.
void SendNtfsEntries(TSK_FS_FILE& file, const char* folder,
                     std::string_view prefix) {
  const char* name = file.name->name;
  const bool is_dot = TSK_FS_ISDOT(name);
  bool has_lines = false;
  const int count = tsk_fs_file_attr_getsize(&file);
  for (int i = 0; i < count; ++i) {
    const TSK_FS_ATTR* attribute = tsk_fs_file_attr_get_idx(&file, i);
    if (attribute == nullptr) continue;
    bool is_left_out = is_dot;
    if (attribute->type == TSK_FS_ATTR_TYPE_NTFS_DATA) {
      // fls takes every folder of two characters for "..", if they begin so.
      is_left_out = file.meta->type == TSK_FS_META_TYPE_DIR && name[0] == '.' &&
                    name[1] != '\0' && name[2] == '\0';
    } else if (attribute->type == TSK_FS_ATTR_TYPE_NTFS_FNAME) {
      if (attribute->id != file.meta->time2.ntfs.fn_id) continue;
    } else if (attribute->type != TSK_FS_ATTR_TYPE_NTFS_IDXROOT) {
      continue;
    }
    has_lines = true;
    if (!is_left_out) SendEntry(file, folder, attribute, prefix);
  }
  if (!has_lines) SendEntry(file, folder, nullptr, prefix);
}

// For libtsk, which knows no exceptions.
TSK_WALK_RET_ENUM OnEntry(TSK_FS_FILE* file, const char* folder,
                          void* volume) noexcept {
  const std::string_view prefix = static_cast<Volume*>(volume)->prefix;
  if (file->name == nullptr || file->name->name == nullptr) {
    return TSK_WALK_CONT;
  }
  if (TSK_FS_TYPE_ISNTFS(file->fs_info->ftype) && file->meta != nullptr) {
    SendNtfsEntries(*file, folder, prefix);
  } else if (!TSK_FS_ISDOT(file->name->name)) {
    SendEntry(*file, folder, nullptr, prefix);
  }
  return TSK_WALK_CONT;
}

}  // namespace

void ListVolume(const ListRequest& request) {
  static Volume volume;  // libtsk's part of it has a cache of 2 MiB.
  volume.prefix = request.prefix;
  volume.cpu_seconds = request.cpu_seconds;
  constexpr unsigned kSectorSize = 512;
  if (tsk_img_open_external(
          &volume, static_cast<TSK_OFF_T>(request.volume_size), kSectorSize,
          ReadImage, CloseImage, PrintImage) == nullptr) {
    Send({.kind = MessageKind::kFailed}, LastError());
    return;
  }
  TSK_FS_INFO* fs = tsk_fs_open_img(&volume.image, 0, TSK_FS_TYPE_DETECT);
  if (fs == nullptr) {
    Send({.kind = MessageKind::kNotKnown}, LastError());
    return;
  }
  const char* type = tsk_fs_type_toname(fs->ftype);
  Send({.kind = MessageKind::kType}, type != nullptr ? type : "unknown");
  constexpr auto kEverything = static_cast<TSK_FS_DIR_WALK_FLAG_ENUM>(
      TSK_FS_DIR_WALK_FLAG_ALLOC | TSK_FS_DIR_WALK_FLAG_UNALLOC |
      TSK_FS_DIR_WALK_FLAG_RECURSE);
  if (tsk_fs_dir_walk(fs, fs->root_inum, kEverything, OnEntry, &volume) != 0) {
    Send({.kind = MessageKind::kFailed}, LastError());
    return;
  }
  // Nothing is given back: the process ends now.
  Send({.kind = MessageKind::kDone});
}

}  // namespace pellucid::lister
