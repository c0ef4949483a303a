#ifndef PELLUCID_TESTS_FUSE_EXERCISER_H_
#define PELLUCID_TESTS_FUSE_EXERCISER_H_

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <stdexcept>
#include <utility>

#include "tests/engine/host_files_fixture.h"
#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {

// Does random operations on a file and on a model of it in memory, in the
// manner of fsx: reads, writes, maps and zeroes it, through the page cache and
// past it.
class Exerciser {
 public:
  // `model` is what the file holds.
  Exerciser(std::filesystem::path file, Bytes model, uint64_t seed)
      : file_(std::move(file)), model_(std::move(model)), random_(seed) {
    Open();
  }
  Exerciser(const Exerciser&) = delete;
  Exerciser& operator=(const Exerciser&) = delete;
  ~Exerciser() { Close(); }

  const Bytes& model() const { return model_; }

  // One operation; false if it failed or what it saw is wrong.
  bool Step() {
    const uint64_t offset = random_() % model_.size();
    const uint64_t length =
        1 + random_() % std::min(kGreatestLength, model_.size() - offset);
    const uint64_t kind = random_() % 100;
    const int fd = random_() % 3 == 0 ? direct_->fd() : buffered_->fd();
    if (kind < 40) return Read(fd, offset, length, kind >= 30);
    if (kind < 85) return Write(fd, offset, length, kind >= 75);
    if (kind < 97) {
      const int mode = kind < 91   ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
                       : kind < 94 ? FALLOC_FL_ZERO_RANGE
                                   : FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
      std::fill_n(At(offset), length, std::byte{0});
      return fallocate(fd, mode, static_cast<off_t>(offset),
                       static_cast<off_t>(length)) == 0;
    }
    if (kind < 98) return fdatasync(fd) == 0;
    if (kind < 99) return msync(memory_, model_.size(), MS_SYNC) == 0;
    Close();
    Open();
    return lseek(buffered_->fd(), 0, SEEK_END) ==
           static_cast<off_t>(model_.size());
  }

 private:
  static constexpr uint64_t kGreatestLength = 40'000;

  void Open() {
    buffered_ = std::make_unique<OpenFile>(file_, O_RDWR);
    direct_ = std::make_unique<OpenFile>(file_, O_RDWR | O_DIRECT);
    memory_ = mmap(nullptr, model_.size(), PROT_READ | PROT_WRITE, MAP_SHARED,
                   buffered_->fd(), 0);
    if (direct_->fd() < 0 || memory_ == MAP_FAILED) {
      throw std::runtime_error("cannot open " + file_.native());
    }
  }
  void Close() {
    munmap(memory_, model_.size());
    buffered_.reset();
    direct_.reset();
  }

  Bytes::iterator At(uint64_t offset) {
    return model_.begin() + static_cast<ptrdiff_t>(offset);
  }

  bool Read(int fd, uint64_t offset, uint64_t length, bool mapped) {
    buffer_.resize(length);
    if (mapped) {
      std::memcpy(buffer_.data(), static_cast<std::byte*>(memory_) + offset,
                  length);
    } else if (pread(fd, buffer_.data(), length, static_cast<off_t>(offset)) !=
               static_cast<ssize_t>(length)) {
      return false;
    }
    return std::equal(buffer_.begin(), buffer_.end(), At(offset));
  }

  bool Write(int fd, uint64_t offset, uint64_t length, bool mapped) {
    const uint64_t seed = random_();
    buffer_.resize(length);
    for (uint64_t i = 0; i < length; ++i) {
      buffer_[i] = static_cast<std::byte>(seed >> (i % 7 * 8) & 0xff);
    }
    std::ranges::copy(buffer_, At(offset));
    if (mapped) {
      std::memcpy(static_cast<std::byte*>(memory_) + offset, buffer_.data(),
                  length);
      return true;
    }
    return pwrite(fd, buffer_.data(), length, static_cast<off_t>(offset)) ==
           static_cast<ssize_t>(length);
  }

  const std::filesystem::path file_;
  Bytes model_;
  Bytes buffer_;
  std::mt19937_64 random_;
  std::unique_ptr<OpenFile> buffered_;
  std::unique_ptr<OpenFile> direct_;
  void* memory_ = nullptr;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_TESTS_FUSE_EXERCISER_H_
