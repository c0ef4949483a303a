#ifndef PELLUCID_TOOLS_LISTER_PROTOCOL_H_
#define PELLUCID_TOOLS_LISTER_PROTOCOL_H_

#include <cstddef>
#include <cstdint>

// What pellucid (tools/file_lister) and the program that lists files
// (tools/lister) say to each other, over two pairs of SOCK_SEQPACKET sockets:
// a message is there as a whole or not at all. Both are of one build, so
// structures go as they are.
namespace pellucid::lister {

// Descriptors of the lister; nothing else is open but /dev/null as 0 to 2.
// Over the first it says the version of libtsk once, as text, and then takes a
// ListRequest and answers with a ListEnd, again and again. A single byte there
// ends a list before its time.
inline constexpr int kControlFd = 3;
// Over the other the process that lists sends Messages while it works.
inline constexpr int kDataFd = 4;

struct ListRequest {
  uint64_t volume_size = 0;  // Bytes.
  uint64_t cpu_seconds = 0;  // Of processor time, for this volume.
  uint64_t memory = 0;       // Bytes of address space; 0: not bounded.
  char prefix[64] = {};      // Of every name; ends with '/' and a 0.
};

// Exit code of a process that could not be confined and so did not begin.
inline constexpr int kNotConfined = 2;

// The process that listed this volume has ended.
struct ListEnd {
  int32_t wait_status = 0;  // As waitpid(2) has it.
};

enum class MessageKind : uint32_t {
  kRead,      // Asks for `length` bytes, at most kMaxRead, from `offset`.
  kType,      // The file system, as libtsk calls it, follows as text.
  kNotKnown,  // libtsk knows no file system here; why follows as text.
  kEntry,     // A line of the body file, without its end, follows.
  kFailed,    // The walk has ended early; why follows as text.
  kDone,      // All entries have been sent.
};

struct Message {
  MessageKind kind = MessageKind::kDone;
  uint32_t is_deleted = 0;  // kEntry: nothing but a deleted name is left.
  uint64_t offset = 0;      // In the volume, in bytes.
  uint64_t length = 0;
};

// The answer to kRead. The bytes follow, unless they cannot be had or are all
// zeros that are not stored, of which a disk may have terabytes.
struct ReadAnswer {
  uint32_t is_ok = 0;
  uint32_t is_hole = 0;
};

inline constexpr size_t kMaxRead = 64 << 10;
inline constexpr size_t kMaxText = 64 << 10;  // Behind a Message.

// What fls(1) does not print either, as it would break a line.
inline bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20; }

}  // namespace pellucid::lister

#endif  // PELLUCID_TOOLS_LISTER_PROTOCOL_H_
