#include "engine/qcow2/mapping_users.h"

#include <chrono>
#include <thread>

namespace pellucid::qcow2 {
namespace {

constexpr std::chrono::microseconds kPause{50};

size_t SlotOfThisThread(size_t slots) {
  static std::atomic<size_t> threads{0};
  thread_local const size_t number =
      threads.fetch_add(1, std::memory_order_relaxed);
  return number % slots;
}

}  // namespace

MappingUsers::Section::Section(MappingUsers& users)
    : counter_(
          users.slots_[SlotOfThisThread(kSlots)].inside[users.phase_.load()]) {
  // Sequentially consistent: whoever does not see this addition has changed the
  // tables before we look at them.
  counter_.fetch_add(1);
}

void MappingUsers::AwaitThoseInside() {
  const std::lock_guard lock(waiting_);
  const unsigned phase = phase_.load();
  // Some may have read the last phase and counted themselves only now.
  AwaitPhase(phase ^ 1);
  phase_.store(phase ^ 1);
  AwaitPhase(phase);
}

void MappingUsers::AwaitPhase(unsigned phase) {
  for (Slot& slot : slots_) {
    while (slot.inside[phase].load() != 0) {
      std::this_thread::sleep_for(kPause);
    }
  }
}

}  // namespace pellucid::qcow2
