#include "tools/lister/body_line.h"

#include <fmt/core.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "tools/lister_protocol.h"

namespace pellucid::lister {
namespace {

// Control characters as fls has them; '|', which fls leaves, as mactime(1)
// takes it back.
void AddName(std::string& line, const char* name) {
  if (name == nullptr) return;
  for (; *name != '\0'; ++name) {
    if (*name == '|') {
      line += "%7C";
    } else {
      line += IsControl(*name) ? '^' : *name;
    }
  }
}

// Of the attributes of NTFS, the file's content and the index of a folder go
// without a name.
bool NamesStream(const TSK_FS_ATTR* attribute) {
  if (attribute == nullptr || attribute->name == nullptr) return false;
  if (attribute->type == TSK_FS_ATTR_TYPE_NTFS_FNAME) return false;
  return attribute->type != TSK_FS_ATTR_TYPE_NTFS_IDXROOT ||
         std::strcmp(attribute->name, "$I30") != 0;
}

bool IsFileName(const TSK_FS_ATTR* attribute) {
  return attribute != nullptr && attribute->type == TSK_FS_ATTR_TYPE_NTFS_FNAME;
}

std::string Mode(const TSK_FS_META& meta) {
  std::array<char, 12> mode = {};
  tsk_fs_meta_make_ls(&meta, mode.data(), mode.size());
  return mode.data();
}

// As many bits as fls prints.
uint32_t Seconds(time_t time) { return static_cast<uint32_t>(time); }

}  // namespace

std::string FormatBodyLine(const TSK_FS_FILE& file, const char* folder,
                           const TSK_FS_ATTR* attribute,
                           std::string_view prefix) {
  const TSK_FS_NAME& name = *file.name;
  const TSK_FS_META* meta = file.meta;
  std::string line = fmt::format("0|{}", prefix);
  AddName(line, folder);
  AddName(line, name.name);
  if (NamesStream(attribute)) {
    line += ':';
    AddName(line, attribute->name);
  }
  if (IsFileName(attribute)) line += " ($FILE_NAME)";
  if (meta != nullptr && meta->type == TSK_FS_META_TYPE_LNK &&
      meta->link != nullptr) {
    line += " -> ";
    AddName(line, meta->link);
  }
  if ((name.flags & TSK_FS_NAME_FLAG_UNALLOC) != 0) {
    const bool is_reused =
        meta != nullptr && (meta->flags & TSK_FS_META_FLAG_ALLOC) != 0;
    line += is_reused ? " (deleted-realloc)" : " (deleted)";
  }
  line += fmt::format("|{}", name.meta_addr);
  if (attribute != nullptr) {
    line += fmt::format("-{}-{}", static_cast<uint32_t>(attribute->type),
                        attribute->id);
  }
  const auto type = static_cast<size_t>(name.type);
  line += fmt::format("|{}/", type < TSK_FS_NAME_TYPE_STR_MAX
                                  ? tsk_fs_name_type_str[type]
                                  : "-");
  if (meta == nullptr) return line + "----------|0|0|0|0|0|0|0";
  line += fmt::format("{}|{}|{}|{}", Mode(*meta), meta->uid, meta->gid,
                      attribute != nullptr ? attribute->size : meta->size);
  if (IsFileName(attribute)) {
    const auto& times = meta->time2.ntfs;
    return line + fmt::format("|{}|{}|{}|{}", Seconds(times.fn_atime),
                              Seconds(times.fn_mtime), Seconds(times.fn_ctime),
                              Seconds(times.fn_crtime));
  }
  return line + fmt::format("|{}|{}|{}|{}", Seconds(meta->atime),
                            Seconds(meta->mtime), Seconds(meta->ctime),
                            Seconds(meta->crtime));
}

}  // namespace pellucid::lister
