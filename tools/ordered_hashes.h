#ifndef PELLUCID_TOOLS_ORDERED_HASHES_H_
#define PELLUCID_TOOLS_ORDERED_HASHES_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "crypto/hash.h"
#include "tools/buffer_pool.h"

namespace pellucid::cli {

// The hash of some bytes.
struct Digest {
  std::string algorithm;  // "sha256", as crypto::MakeHasher() takes it.
  std::vector<std::byte> bytes;
};

// Several hashes of the same bytes, each on a thread of its own. The bytes come
// in numbered pieces (0, 1, 2, ...), which may arrive in any order. Safe to
// call from many threads, but for Finish().
class OrderedHashes {
 public:
  // Starts the threads. Throws crypto::UnsupportedAlgorithm.
  explicit OrderedHashes(const std::vector<std::string>& algorithms);
  OrderedHashes(const OrderedHashes&) = delete;
  OrderedHashes& operator=(const OrderedHashes&) = delete;
  // Abandons what is not hashed.
  ~OrderedHashes();

  // Takes the first `length` bytes of `buffer`, which nobody may change until
  // this has let go of it. Both wait while the piece is far ahead of the
  // slowest hash.
  void Add(uint64_t sequence, BufferPool::Buffer buffer, size_t length);
  void AddZeros(uint64_t sequence, uint64_t length);

  // Lets go of all buffers and ends the threads; nobody waits any more.
  void Abandon();

  // After all pieces have been added: waits for the hashes, in the order in
  // which the algorithms were given. Call once.
  std::vector<Digest> Finish();

 private:
  struct Piece {
    BufferPool::Buffer buffer;  // Null: zeros.
    uint64_t length = 0;
    size_t waiting = 0;  // Hashes that have not had it.
  };
  struct Running {
    std::string algorithm;
    std::unique_ptr<crypto::Hasher> hasher;  // Used by its thread only.
    uint64_t next = 0;                       // Guarded by mutex_.
  };

  void Put(uint64_t sequence, Piece piece);
  void HashAll(Running& running) noexcept;
  // Of the slowest hash. Requires mutex_.
  uint64_t OldestNeeded() const;

  std::mutex mutex_;
  // Signalled when pieces_, a Running::next, ended_ or abandoned_ changes.
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::map<uint64_t, Piece> pieces_;
  bool ended_ = false;  // No more pieces come.
  bool abandoned_ = false;

  std::vector<Running> running_;
  std::vector<std::jthread> threads_;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_ORDERED_HASHES_H_
