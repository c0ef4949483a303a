#ifndef PELLUCID_TOOLS_LISTER_VOLUME_WALK_H_
#define PELLUCID_TOOLS_LISTER_VOLUME_WALK_H_

#include "tools/lister_protocol.h"

namespace pellucid::lister {

// Finds the file system of the volume that is read over kDataFd and sends its
// entries there, in the order of fls(1) -r, deleted and orphaned ones as well.
// May crash or never end: libtsk reads what a stranger has made. Ends the
// process if nobody is at the other end.
void ListVolume(const ListRequest& request);

}  // namespace pellucid::lister

#endif  // PELLUCID_TOOLS_LISTER_VOLUME_WALK_H_
