#ifndef PELLUCID_ENGINE_QCOW2_CLUSTER_SET_H_
#define PELLUCID_ENGINE_QCOW2_CLUSTER_SET_H_

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace pellucid::qcow2 {

// A set of host clusters: a bit for each, in pieces that are there only where
// something is in the set, so that a sparse file costs what it refers to. For
// one thread at a time.
class ClusterSet {
 public:
  bool Has(uint64_t cluster) const {
    const uint64_t piece = cluster / kPiece;
    return piece < pieces_.size() && pieces_[piece] &&
           pieces_[piece]->test(cluster % kPiece);
  }
  void Add(uint64_t cluster) {
    const uint64_t piece = cluster / kPiece;
    if (piece >= pieces_.size()) pieces_.resize(piece + 1);
    if (!pieces_[piece]) pieces_[piece] = std::make_unique<Bits>();
    pieces_[piece]->set(cluster % kPiece);
  }
  void Remove(uint64_t cluster) {
    if (Has(cluster)) pieces_[cluster / kPiece]->reset(cluster % kPiece);
  }

 private:
  static constexpr uint64_t kPiece = 32768;
  using Bits = std::bitset<kPiece>;

  std::vector<std::unique_ptr<Bits>> pieces_;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_CLUSTER_SET_H_
