#include "crypto/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pellucid::crypto {
namespace {

#if defined(__x86_64__)

struct CpuidLeaf {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
};

// Zeros if the processor has no such leaf.
CpuidLeaf Cpuid(unsigned leaf) {
  CpuidLeaf result;
  __get_cpuid_count(leaf, 0, &result.eax, &result.ebx, &result.ecx,
                    &result.edx);
  return result;
}

// XCR0: the register state that the operating system saves. Only with OSXSAVE.
unsigned SavedRegisterState() {
  unsigned eax = 0;
  unsigned edx = 0;
  __asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return eax;
}

constexpr bool HasAll(unsigned word, unsigned bits) {
  return (word & bits) == bits;
}

CpuFeatures Detect() {
  // Intel SDM, volume 2, CPUID; the 512-bit state is three bits of XCR0.
  constexpr unsigned kLeaf1Ecx = bit_AES | bit_PCLMUL;
  constexpr unsigned kLeaf7Ecx = bit_VAES | bit_VPCLMULQDQ;
  constexpr unsigned kYmmState = 0x6;
  constexpr unsigned kZmmState = 0xe6;
  const CpuidLeaf leaf1 = Cpuid(1);
  const CpuidLeaf leaf7 = Cpuid(7);
  const unsigned state =
      HasAll(leaf1.ecx, bit_OSXSAVE) ? SavedRegisterState() : 0;
  CpuFeatures features;
  features.aes_ni = HasAll(leaf1.ecx, kLeaf1Ecx);
  features.vaes256 = features.aes_ni && HasAll(state, kYmmState) &&
                     HasAll(leaf7.ebx, bit_AVX2) &&
                     HasAll(leaf7.ecx, kLeaf7Ecx);
  features.vaes512 = features.vaes256 && HasAll(state, kZmmState) &&
                     HasAll(leaf7.ebx, bit_AVX512F | bit_AVX512BW);
  return features;
}

#else

CpuFeatures Detect() { return {}; }

#endif

}  // namespace

const CpuFeatures& GetCpuFeatures() {
  static const CpuFeatures features = Detect();
  return features;
}

}  // namespace pellucid::crypto
