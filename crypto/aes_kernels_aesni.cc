#include "crypto/aes_kernels.h"
#include "crypto/target_region.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

PELLUCID_BEGIN_TARGET("aes,pclmul")

#include "crypto/aes_cbc_kernel.h"
#include "crypto/aes_xts_kernel.h"

namespace pellucid::crypto {
namespace {

// One block in a 128-bit register.
struct AesNi {
  using Register = __m128i;
  static constexpr int kLanes = 1;

  static Register Load(const std::byte* from) {
    return _mm_loadu_si128(reinterpret_cast<const Register*>(from));
  }
  static void Store(std::byte* to, Register a) {
    _mm_storeu_si128(reinterpret_cast<Register*>(to), a);
  }
  static Register Broadcast(__m128i block) { return block; }
  static Register Xor(Register a, Register b) { return _mm_xor_si128(a, b); }
  static Register Xor3(Register a, Register b, Register c) {
    return Xor(Xor(a, b), c);
  }

  static Register EncryptRound(Register a, Register key) {
    return _mm_aesenc_si128(a, key);
  }
  static Register EncryptLastRound(Register a, Register key) {
    return _mm_aesenclast_si128(a, key);
  }
  static Register DecryptRound(Register a, Register key) {
    return _mm_aesdec_si128(a, key);
  }
  static Register DecryptLastRound(Register a, Register key) {
    return _mm_aesdeclast_si128(a, key);
  }

  template <int bytes>
  static Register ShiftBlocksLeft(Register a) {
    return _mm_bslli_si128(a, bytes);
  }
  template <int bytes>
  static Register ShiftBlocksRight(Register a) {
    return _mm_bsrli_si128(a, bytes);
  }
  template <int bits>
  static Register ShiftWordsLeft(Register a) {
    return _mm_slli_epi64(a, bits);
  }
  template <int bits>
  static Register ShiftWordsRight(Register a) {
    return _mm_srli_epi64(a, bits);
  }

  // What a block's word of this number, times x^128, is modulo the polynomial.
  template <int word>
  static Register Reduce(Register a) {
    return _mm_clmulepi64_si128(a, _mm_cvtsi32_si128(0x87), word);
  }

  // The block times 1, x ... in the lanes.
  static Register PowersOfX(__m128i block) { return block; }
};

using Xts = AesXtsKernel<AesNi>;
using Cbc = AesCbcKernel<AesNi>;

}  // namespace

void AesNiCbcEncrypt(const AesRequest& request) { Cbc::Encrypt(request); }

constinit const AesKernels kAesNiKernels = {
    Xts::Transform<AesDirection::kEncrypt>,
    Xts::Transform<AesDirection::kDecrypt>,
    AesNiCbcEncrypt,
    Cbc::Decrypt,
};

}  // namespace pellucid::crypto

PELLUCID_END_TARGET

#endif  // defined(__x86_64__)
