#ifndef PELLUCID_TESTS_FUSE_STAMPED_WRITER_H_
#define PELLUCID_TESTS_FUSE_STAMPED_WRITER_H_

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {

// Writes to a file at random until that fails, and knows what must be there
// afterwards: every block holds what was last confirmed for it or one of the
// things written since. Blocks are never torn: nothing that the program does
// with a sector can be cut by its death.
class StampedWriter {
 public:
  static constexpr uint64_t kBlock = 512;

  // What makes a change certain.
  enum class Confirmation { kFsync, kReturn, kCaller };

  // The writer `index` of `count`, which share the file in stripes of
  // `stripe_bytes`. `initial` is what the file holds.
  StampedWriter(Bytes initial, uint64_t index, uint64_t count,
                uint64_t stripe_bytes, Confirmation confirmation, uint64_t seed)
      : initial_(std::move(initial)),
        index_(index),
        count_(count),
        stripe_bytes_(stripe_bytes),
        confirmation_(confirmation),
        random_(seed),
        blocks_(initial_.size() / kBlock) {}

  // Returns when the file cannot be written any more, or on Stop().
  void Run(const std::filesystem::path& file) {
    const OpenFile buffered(file, O_RDWR);
    const OpenFile direct(file, O_RDWR | O_DIRECT);
    if (buffered.fd() < 0 || direct.fd() < 0) return;
    while (!stop_ && Step(random_() % 2 == 0 ? buffered.fd() : direct.fd())) {
    }
  }
  void Stop() { stop_ = true; }

  // Everything that has returned until now is certain.
  void Confirm() {
    const std::lock_guard lock(mutex_);
    ConfirmAll();
  }

  // How many changes were confirmed, to see that a test tests anything.
  uint64_t confirmed() const { return confirmed_; }

  // What is wrong with `content` in this writer's stripes; empty if nothing.
  std::string Complaint(const Bytes& content) const {
    for (uint64_t block = 0; block < blocks_.size(); ++block) {
      if (!Owns(block)) continue;
      const auto found = std::span(content).subspan(block * kBlock, kBlock);
      const Block& known = blocks_[block];
      bool is_right = Holds(block, known.certain, found);
      for (const uint32_t stamp : known.later) {
        is_right = is_right || Holds(block, stamp, found);
      }
      if (!is_right) {
        return fmt::format(
            "the block at {} holds none of its {} possible contents; {} is "
            "certain; it {} the initial content",
            block * kBlock, known.later.size() + 1, known.certain,
            Holds(block, kInitial, found) ? "holds" : "does not hold");
      }
    }
    return "";
  }

 private:
  static constexpr uint32_t kInitial = 0;
  static constexpr uint32_t kZeroes = ~uint32_t{0};

  struct Block {
    uint32_t certain = kInitial;
    std::vector<uint32_t> later;
  };

  bool Owns(uint64_t block) const {
    return block * kBlock / stripe_bytes_ % count_ == index_;
  }

  static void Fill(uint64_t block, uint32_t stamp, std::span<std::byte> out) {
    // Both numbers in clear, and every word different.
    uint64_t word = block << 32 | stamp;
    for (size_t at = 0; at < out.size(); at += sizeof word) {
      std::memcpy(out.data() + at, &word, sizeof word);
      word = word * 0x5851f42d4c957f2d + 0x14057b7ef767814f;
    }
  }

  bool Holds(uint64_t block, uint32_t stamp,
             std::span<const std::byte> found) const {
    std::array<std::byte, kBlock> expected = {};
    if (stamp == kInitial) {
      return std::ranges::equal(
          found, std::span(initial_).subspan(block * kBlock, kBlock));
    }
    if (stamp != kZeroes) Fill(block, stamp, expected);
    return std::ranges::equal(found, expected);
  }

  // A run of blocks within one stripe of this writer.
  void ChooseRun(uint64_t& first, uint64_t& blocks) {
    do {
      first = random_() % blocks_.size();
    } while (!Owns(first));
    const uint64_t stripe_blocks = stripe_bytes_ / kBlock;
    const uint64_t end = std::min<uint64_t>(
        blocks_.size(), (first / stripe_blocks + 1) * stripe_blocks);
    blocks = std::min<uint64_t>(end - first,
                                1 + random_() % (uint64_t{1} << random_() % 9));
  }

  bool Step(int fd) {
    const uint64_t choice = random_() % 16;
    if (choice < 3 && confirmation_ == Confirmation::kFsync) {
      if ((choice == 0 ? fsync(fd) : fdatasync(fd)) != 0) return false;
      Confirm();
      return true;
    }
    uint64_t first = 0;
    uint64_t blocks = 0;
    ChooseRun(first, blocks);
    const uint32_t stamp = choice < 5 ? kZeroes : ++last_stamp_;
    {
      const std::lock_guard lock(mutex_);
      for (uint64_t i = first; i < first + blocks; ++i) {
        blocks_[i].later.push_back(stamp);
      }
      if (confirmation_ == Confirmation::kCaller) pending_ = {first, blocks};
    }
    if (!Change(fd, first, blocks, stamp, choice)) return false;
    const std::lock_guard lock(mutex_);
    pending_ = {};
    if (confirmation_ == Confirmation::kReturn) {
      for (uint64_t i = first; i < first + blocks; ++i) {
        blocks_[i].certain = stamp;
        blocks_[i].later.clear();
      }
      ++confirmed_;
    }
    return true;
  }

  bool Change(int fd, uint64_t first, uint64_t blocks, uint32_t stamp,
              uint64_t choice) {
    const auto offset = static_cast<off_t>(first * kBlock);
    const uint64_t length = blocks * kBlock;
    if (stamp == kZeroes) {
      const int mode =
          choice == 3 ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
      return fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, offset,
                       static_cast<off_t>(length)) == 0;
    }
    // Pages of its own: for O_DIRECT.
    buffer_.resize(length + 4096);
    void* start = buffer_.data();
    size_t space = buffer_.size();
    std::align(4096, length, start, space);
    const std::span bytes(static_cast<std::byte*>(start), length);
    for (uint64_t i = 0; i < blocks; ++i) {
      Fill(first + i, stamp, bytes.subspan(i * kBlock, kBlock));
    }
    return pwrite(fd, bytes.data(), length, offset) ==
           static_cast<ssize_t>(length);
  }

  // A change that has not returned stays uncertain.
  void ConfirmAll() {
    for (uint64_t i = 0; i < blocks_.size(); ++i) {
      Block& block = blocks_[i];
      const bool is_pending =
          i >= pending_.first && i < pending_.first + pending_.blocks;
      const size_t certain = block.later.size() - (is_pending ? 1 : 0);
      if (certain == 0) continue;
      block.certain = block.later[certain - 1];
      block.later.erase(block.later.begin(),
                        block.later.begin() + static_cast<ptrdiff_t>(certain));
      ++confirmed_;
    }
  }

  struct BlockRun {
    uint64_t first = 0;
    uint64_t blocks = 0;
  };

  const Bytes initial_;
  const uint64_t index_;
  const uint64_t count_;
  const uint64_t stripe_bytes_;
  const Confirmation confirmation_;
  std::atomic<bool> stop_ = false;
  std::mt19937_64 random_;
  std::vector<std::byte> buffer_;
  uint32_t last_stamp_ = kInitial;

  std::mutex mutex_;  // Protects these while Run() runs.
  std::vector<Block> blocks_;
  BlockRun pending_;
  uint64_t confirmed_ = 0;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_TESTS_FUSE_STAMPED_WRITER_H_
