#ifndef PELLUCID_CRYPTO_STACK_WIPE_H_
#define PELLUCID_CRYPTO_STACK_WIPE_H_

namespace pellucid::crypto {

// Overwrites the part of the stack that calls from here have used and that is
// free now, and the vector registers: ciphers and hashes of libraries leave keys
// there. Takes less than a microsecond.
void WipeStackBelow();

// Calls WipeStackBelow() at the end of a scope, also if that throws.
struct StackWipe {
  StackWipe() = default;
  StackWipe(const StackWipe&) = delete;
  StackWipe& operator=(const StackWipe&) = delete;
  ~StackWipe() { WipeStackBelow(); }
};

// Makes the calling thread overwrite, when it ends, the stack that it has used
// below its first function: compilers keep round keys there while they encrypt,
// and the kernel puts registers there for a signal. For what is called too
// often to wipe each time; costs next to nothing after the first call.
void WipeStackAtThreadEnd();

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_STACK_WIPE_H_
