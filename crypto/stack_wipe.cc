#include "crypto/stack_wipe.h"

#include <array>
#include <cstddef>

#include "crypto/secret_bytes.h"

namespace pellucid::crypto {
namespace {

// memcpy() and the ciphers leave key bytes there. Stale ones reach the stack
// when a signal comes, or when a function of a library is called for the first
// time.
#if defined(__x86_64__)
__attribute__((target("avx512f"))) void ClearUpperRegisters() {
  asm volatile(
      "vpxord %%zmm16, %%zmm16, %%zmm16\n\tvpxord %%zmm17, %%zmm17, %%zmm17\n\t"
      "vpxord %%zmm18, %%zmm18, %%zmm18\n\tvpxord %%zmm19, %%zmm19, %%zmm19\n\t"
      "vpxord %%zmm20, %%zmm20, %%zmm20\n\tvpxord %%zmm21, %%zmm21, %%zmm21\n\t"
      "vpxord %%zmm22, %%zmm22, %%zmm22\n\tvpxord %%zmm23, %%zmm23, %%zmm23\n\t"
      "vpxord %%zmm24, %%zmm24, %%zmm24\n\tvpxord %%zmm25, %%zmm25, %%zmm25\n\t"
      "vpxord %%zmm26, %%zmm26, %%zmm26\n\tvpxord %%zmm27, %%zmm27, %%zmm27\n\t"
      "vpxord %%zmm28, %%zmm28, %%zmm28\n\tvpxord %%zmm29, %%zmm29, %%zmm29\n\t"
      "vpxord %%zmm30, %%zmm30, %%zmm30\n\tvpxord %%zmm31, %%zmm31, %%zmm31" ::
          : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22",
            "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29",
            "xmm30", "xmm31");
}

__attribute__((target("avx"))) void ClearAvxRegisters() {
  asm volatile("vzeroall" ::
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
                     "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                     "xmm14", "xmm15");
}

void ClearSseRegisters() {
  asm volatile(
      "pxor %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm1\n\tpxor %%xmm2, %%xmm2\n\t"
      "pxor %%xmm3, %%xmm3\n\tpxor %%xmm4, %%xmm4\n\tpxor %%xmm5, %%xmm5\n\t"
      "pxor %%xmm6, %%xmm6\n\tpxor %%xmm7, %%xmm7\n\tpxor %%xmm8, %%xmm8\n\t"
      "pxor %%xmm9, %%xmm9\n\tpxor %%xmm10, %%xmm10\n\tpxor %%xmm11, "
      "%%xmm11\n\tpxor %%xmm12, %%xmm12\n\tpxor %%xmm13, %%xmm13\n\t"
      "pxor %%xmm14, %%xmm14\n\tpxor %%xmm15, %%xmm15" ::
          : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
            "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
            "xmm15");
}

void ClearVectorRegisters() {
  if (__builtin_cpu_supports("avx512f")) ClearUpperRegisters();
  if (__builtin_cpu_supports("avx")) {
    ClearAvxRegisters();
  } else {
    ClearSseRegisters();
  }
}
#else
void ClearVectorRegisters() {}
#endif

// Not inlined, so that its own frame lies where theirs were.
template <size_t deepest_call>
__attribute__((noinline)) void WipeBelow() {
  std::array<std::byte, deepest_call> frames;
  SecureWipe(frames);
  ClearVectorRegisters();
}

struct WipeAtEnd {
  // More than a request takes on its way down to the cipher.
  ~WipeAtEnd() { WipeBelow<128 << 10>(); }
};

}  // namespace

void WipeStackBelow() { WipeBelow<16 << 10>(); }

void WipeStackAtThreadEnd() { thread_local const WipeAtEnd wipe; }

}  // namespace pellucid::crypto
