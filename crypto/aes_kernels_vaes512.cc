#include "crypto/aes_kernels.h"
#include "crypto/target_region.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#if !defined(__clang__)
// g++ 12 warns of the undefined operand inside its own 512-bit intrinsics.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

PELLUCID_BEGIN_TARGET("aes,pclmul,avx512f,avx512bw,vaes,vpclmulqdq")

#include "crypto/aes_cbc_kernel.h"
#include "crypto/aes_xts_kernel.h"

namespace pellucid::crypto {
namespace {

// Four blocks in a 512-bit register.
struct Vaes512 {
  using Register = __m512i;
  static constexpr int kLanes = 4;

  static Register Load(const std::byte* from) {
    return _mm512_loadu_si512(from);
  }
  static void Store(std::byte* to, Register a) { _mm512_storeu_si512(to, a); }
  static Register Broadcast(__m128i block) {
    return _mm512_broadcast_i32x4(block);
  }
  static Register Xor(Register a, Register b) { return _mm512_xor_si512(a, b); }
  static Register Xor3(Register a, Register b, Register c) {
    constexpr int kXorOfThree = 0x96;
    return _mm512_ternarylogic_epi64(a, b, c, kXorOfThree);
  }

  static Register EncryptRound(Register a, Register key) {
    return _mm512_aesenc_epi128(a, key);
  }
  static Register EncryptLastRound(Register a, Register key) {
    return _mm512_aesenclast_epi128(a, key);
  }
  static Register DecryptRound(Register a, Register key) {
    return _mm512_aesdec_epi128(a, key);
  }
  static Register DecryptLastRound(Register a, Register key) {
    return _mm512_aesdeclast_epi128(a, key);
  }

  template <int bytes>
  static Register ShiftBlocksLeft(Register a) {
    return _mm512_bslli_epi128(a, bytes);
  }
  template <int bytes>
  static Register ShiftBlocksRight(Register a) {
    return _mm512_bsrli_epi128(a, bytes);
  }
  template <unsigned bits>
  static Register ShiftWordsLeft(Register a) {
    return _mm512_slli_epi64(a, bits);
  }
  template <unsigned bits>
  static Register ShiftWordsRight(Register a) {
    return _mm512_srli_epi64(a, bits);
  }

  // What a block's word of this number, times x^128, is modulo the polynomial.
  template <int word>
  static Register Reduce(Register a) {
    return _mm512_clmulepi64_epi128(a, _mm512_set1_epi64(0x87), word);
  }

  // The block times 1, x ... in the lanes.
  static Register PowersOfX(__m128i block) {
    const Register power = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
    const Register a = Broadcast(block);
    const Register overflow =
        _mm512_srlv_epi64(a, _mm512_sub_epi64(_mm512_set1_epi64(64), power));
    return Xor3(_mm512_sllv_epi64(a, power), ShiftBlocksLeft<8>(overflow),
                Reduce<1>(overflow));
  }
};

using Xts = AesXtsKernel<Vaes512>;
using Cbc = AesCbcKernel<Vaes512>;

}  // namespace

constinit const AesKernels kVaes512Kernels = {
    Xts::Transform<AesDirection::kEncrypt>,
    Xts::Transform<AesDirection::kDecrypt>,
    AesNiCbcEncrypt,
    Cbc::Decrypt,
};

}  // namespace pellucid::crypto

PELLUCID_END_TARGET

#endif  // defined(__x86_64__)
