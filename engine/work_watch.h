#ifndef PELLUCID_ENGINE_WORK_WATCH_H_
#define PELLUCID_ENGINE_WORK_WATCH_H_

#include <cstdint>
#include <functional>

namespace pellucid {

// Who wants to know how far long work has come: `done` of `total` (> 0), in a
// unit that whoever calls it names. Called often, from the thread that works;
// `done` goes down only when other work begins. May be empty. May throw, which
// ends the work.
using WorkWatch = std::function<void(uint64_t done, uint64_t total)>;

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_WORK_WATCH_H_
