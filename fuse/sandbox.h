#ifndef PELLUCID_FUSE_SANDBOX_H_
#define PELLUCID_FUSE_SANDBOX_H_

namespace pellucid::fuse {

// What the sandbox of a mount leaves besides serving it.
enum class SandboxLeaves {
  kServing,
  // Looking, by their names, at the files that were open, wherever they are: no
  // more than whether they are there, how large they are and their times.
  kLookingAtNames,
};

// Gives up, for the rest of the process, what serving a mount does not need
// (docs/sandbox.md): all capabilities, the chance to gain any by execve(2), all
// files of the host but /dev/fuse and /dev/null where the kernel has Landlock,
// and all system calls but those of a list; any other ends the process with
// SIGSYS. What is open stays usable. To be called by the only thread. Throws
// Error if the kernel refuses. Does nothing where HasSandbox() is false.
void EnterSandbox(SandboxLeaves leaves);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_SANDBOX_H_
