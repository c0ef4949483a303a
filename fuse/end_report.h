#ifndef PELLUCID_FUSE_END_REPORT_H_
#define PELLUCID_FUSE_END_REPORT_H_

#include <optional>
#include <string>
#include <string_view>

namespace pellucid::fuse {

// How a server that ends tells those who wait for that, and who are no parents
// of its process, whether all that was written became durable. A socket in the
// abstract namespace: whoever connects before the end is told at the end. Other
// users may do so as well; all they learn is an errno.

// The server's side. Not synchronised.
class EndReport {
 public:
  // Without sockets there is nobody to tell, which is no reason not to mount.
  EndReport();
  EndReport(const EndReport&) = delete;
  EndReport& operator=(const EndReport&) = delete;
  // Whoever was not told sees that.
  ~EndReport();

  // What to give to EndReportReader, without blanks; "" if nobody can be told.
  const std::string& name() const { return name_; }

  // Tells `error`, an errno or 0, to all who have connected. To be called once.
  void Tell(int error);

 private:
  int fd_ = -1;
  std::string name_;
};

// The side of one who waits. Not synchronised.
class EndReportReader {
 public:
  // Connects, or does not if there is no such server, or too many wait.
  explicit EndReportReader(std::string_view name);
  EndReportReader(EndReportReader&& other) noexcept;
  EndReportReader& operator=(EndReportReader&&) = delete;
  ~EndReportReader();

  bool is_connected() const { return fd_ >= 0; }

  // What Tell() said; nothing if it has not been called. For a server that has
  // ended, or one that is not waited for. Requires is_connected().
  std::optional<int> Read() const;

 private:
  int fd_;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_END_REPORT_H_
