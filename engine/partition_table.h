#ifndef PELLUCID_ENGINE_PARTITION_TABLE_H_
#define PELLUCID_ENGINE_PARTITION_TABLE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/block_device.h"

namespace pellucid {

struct Partition {
  // As Linux counts: in an MBR 1 to 4, logical ones from 5, then those of
  // labels inside of primary ones; otherwise the place in the table, from 1.
  unsigned number = 0;
  uint64_t offset = 0;  // In bytes, as the next one. Within the disk.
  uint64_t size = 0;
  std::string label;  // GPT, Apple: UTF-8, of any characters, or empty.
  // The table that has it: "dos", "gpt", "mac", "bsd" or "sun".
  std::string scheme;
  // As the table has it: a number such as "0x83", a GUID in lower case, Apple's
  // name for it.
  std::string type;
};

struct PartitionTable {
  std::vector<Partition> partitions;  // By number; they may overlap.
  // What is wrong with the table without keeping it from being read, or why
  // nothing of it could be used; for people, without the name of the disk.
  std::vector<std::string> warnings;
};

// The partitions of a disk: an MBR with logical partitions in a chain of
// extended boot records and with labels of BSD and Solaris inside of primary
// partitions; a GPT (UEFI specification, "GUID Partition Table Disk Layout"),
// whose backup is used if the first copy is damaged; or, if there is neither,
// an Apple partition map, a label of Sun, a label of BSD. Empty without such a
// table, also if a file system begins where an MBR would be.
//
// Nothing in a table is believed: places outside the disk are cut or left out,
// chains end, and a table costs a bounded number of reads and 1 MiB. Throws
// what disk.Read() does. Safe to call from many threads.
std::optional<PartitionTable> ReadPartitionTable(BlockDevice& disk);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_PARTITION_TABLE_H_
