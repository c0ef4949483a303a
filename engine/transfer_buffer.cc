#include "engine/transfer_buffer.h"

#include <array>
#include <utility>

namespace pellucid {

struct alignas(TransferBuffer::kAlignment) TransferBuffer::Block {
  std::array<std::byte, kSize> bytes;
  std::unique_ptr<Block> next;

  // Blocks of this thread that nobody uses: as many as were in use at the same
  // time, which is the number of devices on top of each other.
  static thread_local std::unique_ptr<Block> spare;
};

thread_local std::unique_ptr<TransferBuffer::Block>
    TransferBuffer::Block::spare;

TransferBuffer::TransferBuffer() : block_(std::move(Block::spare)) {
  if (block_) {
    Block::spare = std::move(block_->next);
  } else {
    block_.reset(new Block);  // Not filled with zeros first.
  }
}

TransferBuffer::~TransferBuffer() {
  block_->next = std::move(Block::spare);
  Block::spare = std::move(block_);
}

std::span<std::byte> TransferBuffer::bytes() { return block_->bytes; }

}  // namespace pellucid
