#include "engine/qcow2/image_repair.h"

#include <utility>

#include "engine/qcow2/table_switch.h"

namespace pellucid::qcow2 {

void RepairImage(ResizableDevice& file, const std::string& file_name) {
  TableSwitch tables(file, file_name, Trust::kReferences);
  NextTables next = tables.Present();
  if (tables.is_sound()) next.header.incompatible_features &= ~kCorrupt;
  tables.SwitchTo(std::move(next));
}

}  // namespace pellucid::qcow2
