#ifndef PELLUCID_FUSE_FILE_TIMES_H_
#define PELLUCID_FUSE_FILE_TIMES_H_

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <ctime>

namespace pellucid::fuse {

// The times that a file shows: those of the image at first, then those of the
// last change of its data, or what a caller has set. They live as long as the
// mount. Safe to call from many threads; nobody waits.
class FileTimes {
 public:
  explicit FileTimes(const struct stat& image);

  // The data has just changed.
  void Touch();

  void set_accessed(timespec time) { accessed_ = Nanoseconds(time); }
  void set_modified(timespec time) { modified_ = Nanoseconds(time); }
  void set_changed(timespec time) { changed_ = Nanoseconds(time); }

  timespec accessed() const { return Time(accessed_); }
  timespec modified() const { return Time(modified_); }
  timespec changed() const { return Time(changed_); }

 private:
  // Since 1970; enough until the year 2262, where a time stays that is later.
  static int64_t Nanoseconds(timespec time);
  static timespec Time(int64_t nanoseconds);

  std::atomic<int64_t> accessed_;
  std::atomic<int64_t> modified_;
  std::atomic<int64_t> changed_;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_FILE_TIMES_H_
