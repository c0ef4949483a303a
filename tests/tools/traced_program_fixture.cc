#include "tests/tools/traced_program_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>

namespace pellucid {

void AwaitExit(pid_t process) {
  for (;;) {
    int status = 0;
    if (waitpid(process, &status, __WALL) != process || !WIFSTOPPED(status)) {
      throw std::runtime_error("the program ended unseen");
    }
    if (status >> 8 == (SIGTRAP | (PTRACE_EVENT_EXIT << 8))) return;
    // A signal for it, or a stop of the tracing itself.
    const int number = status >> 16 != 0 ? 0 : WSTOPSIG(status);
    ptrace(PTRACE_CONT, process, nullptr, number);
  }
}

int RunAndLook(const std::vector<std::string>& argv,
               const std::filesystem::path& output,
               const std::function<void(pid_t)>& look) {
  const pid_t child = fork();
  if (child == 0) {
    const int output_fd =
        open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(output_fd, STDOUT_FILENO);
    dup2(output_fd, STDERR_FILENO);
    std::vector<char*> pointers;
    for (const std::string& word : argv) {
      pointers.push_back(const_cast<char*>(word.c_str()));
    }
    pointers.push_back(nullptr);
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    execv(pointers[0], pointers.data());
    _exit(127);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
    throw std::runtime_error(argv[0] + " did not start");
  }
  ptrace(PTRACE_SETOPTIONS, child, nullptr,
         PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL);
  ptrace(PTRACE_CONT, child, nullptr, 0);
  AwaitExit(child);
  look(child);
  ptrace(PTRACE_DETACH, child, nullptr, 0);
  if (waitpid(child, &status, 0) != child) {
    throw std::runtime_error(argv[0] + " ended unseen");
  }
  return status;
}

}  // namespace pellucid
