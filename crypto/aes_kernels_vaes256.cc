#include "crypto/aes_kernels.h"
#include "crypto/target_region.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

PELLUCID_BEGIN_TARGET("aes,pclmul,avx2,vaes,vpclmulqdq")

#include "crypto/aes_cbc_kernel.h"
#include "crypto/aes_xts_kernel.h"

namespace pellucid::crypto {
namespace {

// Two blocks in a 256-bit register.
struct Vaes256 {
  using Register = __m256i;
  static constexpr int kLanes = 2;

  static Register Load(const std::byte* from) {
    return _mm256_loadu_si256(reinterpret_cast<const Register*>(from));
  }
  static void Store(std::byte* to, Register a) {
    _mm256_storeu_si256(reinterpret_cast<Register*>(to), a);
  }
  static Register Broadcast(__m128i block) {
    return _mm256_broadcastsi128_si256(block);
  }
  static Register Xor(Register a, Register b) { return _mm256_xor_si256(a, b); }
  static Register Xor3(Register a, Register b, Register c) {
    return Xor(Xor(a, b), c);
  }

  static Register EncryptRound(Register a, Register key) {
    return _mm256_aesenc_epi128(a, key);
  }
  static Register EncryptLastRound(Register a, Register key) {
    return _mm256_aesenclast_epi128(a, key);
  }
  static Register DecryptRound(Register a, Register key) {
    return _mm256_aesdec_epi128(a, key);
  }
  static Register DecryptLastRound(Register a, Register key) {
    return _mm256_aesdeclast_epi128(a, key);
  }

  template <int bytes>
  static Register ShiftBlocksLeft(Register a) {
    return _mm256_bslli_epi128(a, bytes);
  }
  template <int bytes>
  static Register ShiftBlocksRight(Register a) {
    return _mm256_bsrli_epi128(a, bytes);
  }
  template <int bits>
  static Register ShiftWordsLeft(Register a) {
    return _mm256_slli_epi64(a, bits);
  }
  template <int bits>
  static Register ShiftWordsRight(Register a) {
    return _mm256_srli_epi64(a, bits);
  }

  // What a block's word of this number, times x^128, is modulo the polynomial.
  template <int word>
  static Register Reduce(Register a) {
    return _mm256_clmulepi64_epi128(a, _mm256_set1_epi64x(0x87), word);
  }

  // The block times 1, x ... in the lanes.
  static Register PowersOfX(__m128i block) {
    const Register power = _mm256_set_epi64x(1, 1, 0, 0);
    const Register a = Broadcast(block);
    const Register overflow =
        _mm256_srlv_epi64(a, _mm256_sub_epi64(_mm256_set1_epi64x(64), power));
    return Xor3(_mm256_sllv_epi64(a, power), ShiftBlocksLeft<8>(overflow),
                Reduce<1>(overflow));
  }
};

using Xts = AesXtsKernel<Vaes256>;
using Cbc = AesCbcKernel<Vaes256>;

}  // namespace

constinit const AesKernels kVaes256Kernels = {
    Xts::Transform<AesDirection::kEncrypt>,
    Xts::Transform<AesDirection::kDecrypt>,
    AesNiCbcEncrypt,
    Cbc::Decrypt,
};

}  // namespace pellucid::crypto

PELLUCID_END_TARGET

#endif  // defined(__x86_64__)
