#include "engine/qcow2/allocation.h"

#include <span>
#include <unordered_map>

#include "engine/qcow2/table_entries.h"
#include "engine/qcow2/table_words.h"

namespace pellucid::qcow2 {

Allocation CountAllocation(BlockDevice& file, const Header& header) {
  // A hostile L1 table can name one L2 table millions of times.
  std::unordered_map<uint64_t, uint64_t> times;
  ForEachPiece(file, header.l1_table_offset,
               header.l1_table_offset + uint64_t{8} * header.l1_size,
               [&](uint64_t, std::span<const uint64_t> words) {
                 for (const uint64_t word : words) {
                   const uint64_t table = word & kOffsetMask;
                   if (table != 0 && table < file.size()) ++times[table];
                 }
               });
  Allocation allocation;
  const size_t step = header.l2_entry_size() / 8;
  for (const auto& [table, uses] : times) {
    ForEachPiece(file, table, table + header.cluster_size(),
                 [&, uses = uses](uint64_t, std::span<const uint64_t> words) {
                   for (size_t i = 0; i < words.size(); i += step) {
                     if ((words[i] & kCompressed) != 0) {
                       allocation.compressed += uses;
                       allocation.clusters += uses;
                     } else if (HasCluster(header, words[i])) {
                       allocation.clusters += uses;
                     }
                   }
                 });
  }
  return allocation;
}

}  // namespace pellucid::qcow2
