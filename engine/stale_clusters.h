#ifndef PELLUCID_ENGINE_STALE_CLUSTERS_H_
#define PELLUCID_ENGINE_STALE_CLUSTERS_H_

#include <cstdint>
#include <optional>

#include "engine/open_image.h"
#include "engine/work_watch.h"

namespace pellucid {

// What the file of a qcow2 image holds beside the disk that it shows: traces
// that whoever gets the file can read, or anybody who has the key.
struct StaleClusters {
  uint64_t cluster_size = 0;
  // L2 entries of compressed clusters in all states of the image. QEMU and we
  // encrypt no compressed data: in an encrypted image it is plaintext.
  uint64_t compressed_entries = 0;

  // Clusters that no table refers to, with something other than zeros in them,
  // by what they look like as they are stored.
  uint64_t noise = 0;   // Ciphertext, or compressed data.
  uint64_t tables = 0;  // Old L1 and L2 tables, refcounts, snapshot tables.
  uint64_t plain = 0;   // All else: what was stored without encryption.
  // Where in the file the first of each kind is.
  std::optional<uint64_t> first_noise;
  std::optional<uint64_t> first_plain;
  // The tables are damaged, so that clusters in use may be among them.
  bool tables_are_damaged = false;
};

// Reads the tables and every cluster of the top image that nothing refers to;
// needs no key. `watch` counts bytes of the file. Nothing for what is no qcow2
// image, or has an external data file, where no refcounts tell what is in use.
// Throws every kind of Error but WrongPassphrase, and what `watch` throws.
std::optional<StaleClusters> FindStaleClusters(const OpenOptions& options,
                                               const WorkWatch& watch = {});

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_STALE_CLUSTERS_H_
