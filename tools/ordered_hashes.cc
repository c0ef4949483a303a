#include "tools/ordered_hashes.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

namespace pellucid::cli {
namespace {

// How many pieces may be between the slowest hash and a new piece. Zeros need
// no buffer, so nothing else would hold them back.
constexpr uint64_t kMaxAhead = 16;

void HashPiece(crypto::Hasher& hasher, const BufferPool::Buffer& buffer,
               uint64_t length) {
  if (buffer != nullptr) {
    hasher.Update({buffer.get(), static_cast<size_t>(length)});
    return;
  }
  static constexpr std::array<std::byte, size_t{64} << 10> kZeros = {};
  while (length > 0) {
    const auto step =
        static_cast<size_t>(std::min<uint64_t>(length, kZeros.size()));
    hasher.Update(std::span(kZeros).first(step));
    length -= step;
  }
}

}  // namespace

OrderedHashes::OrderedHashes(const std::vector<std::string>& algorithms) {
  for (const std::string& algorithm : algorithms) {
    running_.push_back({.algorithm = algorithm,
                        .hasher = crypto::MakeHasher(algorithm),
                        .next = 0});
  }
  for (Running& running : running_) {
    threads_.emplace_back([this, &running] { HashAll(running); });
  }
}

OrderedHashes::~OrderedHashes() { Abandon(); }

void OrderedHashes::Add(uint64_t sequence, BufferPool::Buffer buffer,
                        size_t length) {
  Put(sequence, {.buffer = std::move(buffer),
                 .length = length,
                 .waiting = running_.size()});
}

void OrderedHashes::AddZeros(uint64_t sequence, uint64_t length) {
  Put(sequence,
      {.buffer = nullptr, .length = length, .waiting = running_.size()});
}

void OrderedHashes::Put(uint64_t sequence, Piece piece) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    return abandoned_ || sequence <= OldestNeeded() + kMaxAhead;
  });
  if (abandoned_) return;
  pieces_.emplace(sequence, std::move(piece));
  changed_.notify_all();
}

uint64_t OrderedHashes::OldestNeeded() const {
  uint64_t oldest = UINT64_MAX - kMaxAhead;
  for (const Running& running : running_) {
    oldest = std::min(oldest, running.next);
  }
  return oldest;
}

void OrderedHashes::HashAll(Running& running) noexcept {
  std::unique_lock lock(mutex_);
  for (;;) {
    auto found = pieces_.end();
    changed_.wait(lock, [&] {
      found = pieces_.find(running.next);
      return abandoned_ || found != pieces_.end() || ended_;
    });
    if (abandoned_ || found == pieces_.end()) return;
    BufferPool::Buffer buffer = found->second.buffer;
    const uint64_t length = found->second.length;
    lock.unlock();
    HashPiece(*running.hasher, buffer, length);
    buffer.reset();
    lock.lock();
    ++running.next;
    // Looked up anew: it may have been abandoned.
    found = pieces_.find(running.next - 1);
    if (found != pieces_.end() && --found->second.waiting == 0) {
      pieces_.erase(found);
    }
    changed_.notify_all();
  }
}

void OrderedHashes::Abandon() {
  const std::lock_guard lock(mutex_);
  abandoned_ = true;
  pieces_.clear();
  changed_.notify_all();
}

std::vector<Digest> OrderedHashes::Finish() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  threads_.clear();  // Joins them.
  std::vector<Digest> digests;
  for (const Running& running : running_) {
    std::vector<std::byte> bytes(running.hasher->digest_size());
    running.hasher->Final(bytes);
    digests.push_back({.algorithm = running.algorithm, .bytes = bytes});
  }
  return digests;
}

}  // namespace pellucid::cli
