// The program that lists files through libtsk, for tools/file_lister. This
// process never reads a byte of an image: a child does, one for each volume, so
// that what makes libtsk crash or run on costs the list of that volume alone.

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <tsk/libtsk.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "tools/lister/fence.h"
#include "tools/lister/volume_walk.h"
#include "tools/lister_protocol.h"

namespace pellucid::lister {
namespace {

[[noreturn]] void RunChild(const ListRequest& request, pid_t parent) {
  close(kControlFd);
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != parent) _exit(1);
  if (!EnterFence(request.cpu_seconds, request.memory)) _exit(kNotConfined);
  ListVolume(request);
  _exit(0);
}

// Waits until the child has ended. Ends it if pellucid has ended, or wants no
// more of it. `end` is of a pipe whose other end the child has.
void AwaitEnd(pid_t child, int end) {
  std::array<pollfd, 2> waiting = {{{kControlFd, POLLIN, 0}, {end, POLLIN, 0}}};
  while (poll(waiting.data(), waiting.size(), -1) < 0) {
    if (errno != EINTR) break;
  }
  if (waiting[1].revents == 0) kill(child, SIGKILL);
}

// What a child has asked for and died before it came must not be taken for the
// bytes of another volume. pellucid has sent it all before the next request.
void DropOldAnswers() {
  char byte;
  while (recv(kDataFd, &byte, sizeof byte, MSG_DONTWAIT) > 0) {
  }
}

// False if no child could be made, or waited for.
bool ListInChild(const ListRequest& request, ListEnd& result) {
  std::array<int, 2> ends;
  if (pipe(ends.data()) != 0) return false;
  const pid_t self = getpid();
  const pid_t child = fork();
  if (child < 0) return false;
  if (child == 0) RunChild(request, self);
  close(ends[1]);
  AwaitEnd(child, ends[0]);
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return false;
  }
  result.wait_status = status;
  return true;
}

bool Say(const void* data, size_t size) {
  return send(kControlFd, data, size, MSG_NOSIGNAL) ==
         static_cast<ssize_t>(size);
}

int Run() {
  // Times of FAT are converted without another look at the zone's file.
  tzset();
  if (!GiveUpRights()) return kNotConfined;
  const char* version = tsk_version_get_str();
  if (!Say(version, std::strlen(version))) return 1;
  ListRequest request;
  while (true) {
    const ssize_t received = recv(kControlFd, &request, sizeof request, 0);
    if (received <= 0) break;
    // Otherwise it was to end what had ended by itself.
    if (received != static_cast<ssize_t>(sizeof request)) continue;
    request.prefix[sizeof request.prefix - 1] = '\0';
    DropOldAnswers();
    ListEnd result;
    if (!ListInChild(request, result)) return 1;
    if (!Say(&result, sizeof result)) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace pellucid::lister

int main() { return pellucid::lister::Run(); }
