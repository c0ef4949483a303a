#ifndef PELLUCID_TOOLS_LISTER_FENCE_H_
#define PELLUCID_TOOLS_LISTER_FENCE_H_

#include <cstdint>

namespace pellucid::lister {

// Gives up, for this process and its children: capabilities, set-user-id
// programs, core dumps (which would put plaintext on a disk), and being spared
// when memory runs out. False if the kernel refuses.
bool GiveUpRights();

// Bounds this process: processor time, address space (0: not bounded), and all
// system calls but those that listing files needs; any other ends it with
// SIGSYS. False if the kernel refuses. Builds with sanitizers, which need much
// memory and system calls of their own, have only the bound of time.
bool EnterFence(uint64_t cpu_seconds, uint64_t memory);

}  // namespace pellucid::lister

#endif  // PELLUCID_TOOLS_LISTER_FENCE_H_
