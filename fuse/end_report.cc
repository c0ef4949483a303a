#include "fuse/end_report.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <utility>

namespace pellucid::fuse {
namespace {

// Those who gave up waiting count as well.
constexpr int kMaxWaiting = 1024;

int OpenSocket() {
  return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

}  // namespace

EndReport::EndReport() : fd_(OpenSocket()) {
  // Without an address the kernel finds one that is free.
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof address.sun_family;
  if (fd_ < 0 || bind(fd_, generic, length) != 0 ||
      listen(fd_, kMaxWaiting) != 0) {
    return;
  }
  length = sizeof address;
  if (getsockname(fd_, generic, &length) != 0) return;
  constexpr socklen_t kBegin = offsetof(sockaddr_un, sun_path) + 1;
  if (length > kBegin) name_.assign(address.sun_path + 1, length - kBegin);
}

EndReport::~EndReport() {
  if (fd_ >= 0) close(fd_);
}

void EndReport::Tell(int error) {
  while (true) {
    const int waiting = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (waiting < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (waiting < 0) return;
    (void)!send(waiting, &error, sizeof error, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(waiting);
  }
}

EndReportReader::EndReportReader(std::string_view name) : fd_(OpenSocket()) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const bool fits = !name.empty() && name.size() < sizeof address.sun_path;
  if (fits) name.copy(address.sun_path + 1, name.size());
  const auto length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (fd_ >= 0 && (!fits || connect(fd_, reinterpret_cast<sockaddr*>(&address),
                                    length) != 0)) {
    close(std::exchange(fd_, -1));
  }
}

EndReportReader::EndReportReader(EndReportReader&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)) {}

EndReportReader::~EndReportReader() {
  if (fd_ >= 0) close(fd_);
}

std::optional<int> EndReportReader::Read() const {
  int error = 0;
  const ssize_t length = recv(fd_, &error, sizeof error, MSG_DONTWAIT);
  if (length != sizeof error) return std::nullopt;
  return error;
}

}  // namespace pellucid::fuse
