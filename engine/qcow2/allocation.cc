#include "engine/qcow2/allocation.h"

#include <span>
#include <unordered_map>

#include "engine/io_error.h"
#include "engine/qcow2/table_entries.h"
#include "engine/qcow2/table_words.h"

namespace pellucid::qcow2 {

Allocation CountAllocation(BlockDevice& file, const Header& header) {
  Allocation allocation;
  const auto read_what_can_be_read = [&](auto read) {
    try {
      read();
    } catch (const IoError& error) {
      if (allocation.unreadable.empty()) allocation.unreadable = error.what();
    }
  };
  // A hostile L1 table can name one L2 table millions of times, and places that
  // overlap.
  std::unordered_map<uint64_t, uint64_t> times;
  read_what_can_be_read([&] {
    ForEachStoredPiece(file, header.l1_table_offset,
                       header.l1_table_offset + uint64_t{8} * header.l1_size,
                       [&](uint64_t, std::span<const uint64_t> words) {
                         for (const uint64_t word : words) {
                           const uint64_t table = word & kOffsetMask;
                           if (table != 0 && table < file.size() &&
                               table % header.cluster_size() == 0) {
                             ++times[table];
                           }
                         }
                       });
  });
  const size_t step = header.l2_entry_size() / 8;
  for (const auto& [table, uses] : times) {
    read_what_can_be_read([&, table = table, uses = uses] {
      ForEachStoredPiece(file, table, table + header.cluster_size(),
                         [&](uint64_t, std::span<const uint64_t> words) {
                           for (size_t i = 0; i < words.size(); i += step) {
                             if ((words[i] & kCompressed) != 0) {
                               allocation.compressed += uses;
                               allocation.clusters += uses;
                             } else if (HasCluster(header, words[i])) {
                               allocation.clusters += uses;
                             }
                           }
                         });
    });
  }
  return allocation;
}

}  // namespace pellucid::qcow2
