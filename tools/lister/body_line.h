#ifndef PELLUCID_TOOLS_LISTER_BODY_LINE_H_
#define PELLUCID_TOOLS_LISTER_BODY_LINE_H_

#include <tsk/libtsk.h>

#include <string>
#include <string_view>

namespace pellucid::lister {

// What fls(1) -m prints for an entry, without the end of the line:
// MD5|name|inode|mode|UID|GID|size|atime|mtime|ctime|crtime, times in seconds
// since 1970, 0 for what is not known. `folder` is the path of the entry's
// folder, which ends with '/', or null; `attribute` one of NTFS, or null.
// Control characters in names are '^', as with fls; '|', which fls leaves, so
// that mactime(1) misreads the line, is %7C, which mactime turns back.
std::string FormatBodyLine(const TSK_FS_FILE& file, const char* folder,
                           const TSK_FS_ATTR* attribute,
                           std::string_view prefix);

}  // namespace pellucid::lister

#endif  // PELLUCID_TOOLS_LISTER_BODY_LINE_H_
