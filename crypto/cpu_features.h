#ifndef PELLUCID_CRYPTO_CPU_FEATURES_H_
#define PELLUCID_CRYPTO_CPU_FEATURES_H_

namespace pellucid::crypto {

// Instruction sets that this processor has and whose registers the operating
// system saves. All false on anything but x86-64.
struct CpuFeatures {
  bool aes_ni;   // AES-NI and PCLMULQDQ, on 128-bit registers.
  bool vaes256;  // VAES and VPCLMULQDQ on 256-bit registers, and AVX2.
  bool vaes512;  // The same on 512-bit registers, and AVX512F and AVX512BW.
};

// Asked of the processor once. Safe to call from many threads.
const CpuFeatures& GetCpuFeatures();

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_CPU_FEATURES_H_
