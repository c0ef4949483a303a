#ifndef PELLUCID_CRYPTO_STACK_WIPE_H_
#define PELLUCID_CRYPTO_STACK_WIPE_H_

namespace pellucid::crypto {

// Overwrites the part of the stack that calls from here have used and that is
// free now: ciphers and hashes of libraries leave keys there. Takes less than a
// microsecond.
void WipeStackBelow();

// Calls WipeStackBelow() at the end of a scope, also if that throws.
struct StackWipe {
  StackWipe() = default;
  StackWipe(const StackWipe&) = delete;
  StackWipe& operator=(const StackWipe&) = delete;
  ~StackWipe() { WipeStackBelow(); }
};

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_STACK_WIPE_H_
