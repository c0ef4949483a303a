#ifndef PELLUCID_ENGINE_QCOW2_MAPPING_USERS_H_
#define PELLUCID_ENGINE_QCOW2_MAPPING_USERS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace pellucid::qcow2 {

// Those who have looked a host cluster up and are still using it. A cluster
// that no table refers to any more may be given to somebody else only when
// they are done: otherwise a slow reader would see another file's bytes, and a
// slow writer would change them.
//
// Entering and leaving are two atomic additions on a cache line that few
// threads share; nobody waits but AwaitThoseInside(). Safe to call from many
// threads.
class MappingUsers {
 public:
  // From the construction to the end, mappings that are looked up stay good.
  class Section {
   public:
    explicit Section(MappingUsers& users);
    ~Section() { counter_.fetch_sub(1); }
    Section(const Section&) = delete;
    Section& operator=(const Section&) = delete;

   private:
    std::atomic<uint32_t>& counter_;
  };

  // Returns when every section has ended that began before the call. Not to be
  // called within one.
  void AwaitThoseInside();

 private:
  static constexpr size_t kSlots = 32;
  // Two counters, used by turns: those who come late must not keep the wait
  // from ending.
  struct alignas(64) Slot {
    std::array<std::atomic<uint32_t>, 2> inside{};
  };

  void AwaitPhase(unsigned phase);

  std::array<Slot, kSlots> slots_;
  std::atomic<unsigned> phase_ = 0;
  std::mutex waiting_;  // One waits at a time; held while it does.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_MAPPING_USERS_H_
