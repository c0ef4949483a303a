#!/usr/bin/env python3
"""Writes reference_vectors.h: what sectors look like when encrypted.

The IV generators and the modes are written down here once more, over big
integers, from their descriptions (dm-crypt, IEEE 1619, NIST SP 800-38A, the
LUKS1 specification); only the block ciphers themselves are libgcrypt's. Where
Python's `cryptography` has a whole mode, it must agree.

    python3 reference_vectors.py > reference_vectors.h
"""

import ctypes
import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

GCRYPT = ctypes.CDLL("libgcrypt.so.20")
GCRYPT.gcry_check_version(None)
ALGORITHMS = {
    ("aes", 16): 7, ("aes", 24): 8, ("aes", 32): 9, ("cast5", 16): 3,
    ("twofish", 16): 303, ("twofish", 32): 10,
    ("serpent", 16): 304, ("serpent", 24): 305, ("serpent", 32): 306,
    ("camellia", 16): 310, ("camellia", 24): 311, ("camellia", 32): 312,
    ("sm4", 16): 318,
}
ECB = 1


def block_size(cipher):
    return 8 if cipher == "cast5" else 16


def ecb(cipher, key, data):
    handle = ctypes.c_void_p()
    assert GCRYPT.gcry_cipher_open(
        ctypes.byref(handle), ALGORITHMS[cipher, len(key)], ECB, 0) == 0
    assert GCRYPT.gcry_cipher_setkey(handle, key, len(key)) == 0
    out = ctypes.create_string_buffer(len(data))
    assert GCRYPT.gcry_cipher_encrypt(
        handle, out, len(data), data, len(data)) == 0
    GCRYPT.gcry_cipher_close(handle)
    return out.raw


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def blocks(data, size):
    return [data[i:i + size] for i in range(0, len(data), size)]


def times_x(a):
    a <<= 1
    return a ^ (1 << 128 | 0x87) if a >> 128 else a


def multiply(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = times_x(a)
        b >>= 1
    return product


def iv_of(spec, cipher, key, sector, sector_size):
    size = block_size(cipher)
    name, _, hash_name = spec.partition(":")
    if name == "null":
        return bytes(size)
    if name == "plain":
        return (sector & 0xffffffff).to_bytes(4, "little").ljust(size, b"\0")
    if name == "plain64":
        return sector.to_bytes(8, "little").ljust(size, b"\0")
    if name == "plain64be":
        return sector.to_bytes(8, "big").rjust(size, b"\0")
    if name == "benbi":
        count = sector * (512 // size) + 1
        return (count % 2**64).to_bytes(8, "big").rjust(size, b"\0")
    if name == "essiv":
        salt = hashlib.new(hash_name, key).digest()
        return ecb(cipher, salt, sector.to_bytes(8, "little").ljust(size, b"\0"))
    if name == "eboiv":
        offset = sector * sector_size % 2**64
        return ecb(cipher, key, offset.to_bytes(8, "little").ljust(size, b"\0"))
    raise ValueError(spec)


def encrypt_sector(cipher, mode, key, iv, data):
    size = block_size(cipher)
    if mode == "ecb":
        return ecb(cipher, key, data)
    if mode == "cbc":
        out = []
        for block in blocks(data, size):
            iv = ecb(cipher, key, xor(block, iv))
            out.append(iv)
        return b"".join(out)
    if mode == "ctr":
        first = int.from_bytes(iv, "big")
        counters = b"".join(
            ((first + i) % 256**size).to_bytes(size, "big")
            for i in range(len(data) // size))
        return xor(data, ecb(cipher, key, counters))
    if mode == "xts":
        half = len(key) // 2
        tweak = int.from_bytes(ecb(cipher, key[half:], iv), "little")
        masks = b""
        for _ in blocks(data, 16):
            masks += tweak.to_bytes(16, "little")
            tweak = times_x(tweak)
        return xor(ecb(cipher, key[:half], xor(data, masks)), masks)
    if mode == "lrw":
        tweak_key = int.from_bytes(key[-16:], "big")
        index = int.from_bytes(iv, "big")
        masks = b"".join(
            multiply(tweak_key, (index + i) % 2**128).to_bytes(16, "big")
            for i in range(len(data) // 16))
        return xor(ecb(cipher, key[:-16], xor(data, masks)), masks)
    raise ValueError(mode)


def check_against_cryptography(cipher, mode, key, iv, data, encrypted):
    if cipher not in ("aes", "camellia", "cast5", "sm4"):
        return
    algorithm = {"aes": algorithms.AES, "camellia": algorithms.Camellia,
                 "cast5": algorithms.CAST5, "sm4": algorithms.SM4}[cipher]
    if mode == "cbc":
        whole = modes.CBC(iv)
    elif mode == "ecb":
        whole = modes.ECB()
    elif mode == "ctr" and cipher == "aes":
        whole = modes.CTR(iv)
    elif mode == "xts" and cipher == "aes" and len(key) != 48:
        whole = modes.XTS(iv)
    else:
        return
    encryptor = Cipher(algorithm(key), whole).encryptor()
    assert encryptor.update(data) + encryptor.finalize() == encrypted, mode


def pattern(size):
    return bytes((i * 7 + i // 256) & 255 for i in range(size))


def encrypt(cipher, mode, iv_spec, key, sector_size, first_sector, data):
    out = b""
    sector = first_sector
    for plaintext in blocks(data, sector_size):
        iv = (bytes(block_size(cipher)) if mode == "ecb" else
              iv_of(iv_spec, cipher, key, sector, sector_size))
        encrypted = encrypt_sector(cipher, mode, key, iv, plaintext)
        check_against_cryptography(cipher, mode, key, iv, plaintext, encrypted)
        out += encrypted
        sector += sector_size // 512
    return out


SECTORS = 3
CASES = [
    # cipher, mode, key size, sector size, first sector
    ("aes", "cbc-null", 16, 512, 9),
    ("aes", "cbc-plain", 32, 512, 2**32 - 1),
    ("aes", "cbc-plain64", 16, 512, 2**32 - 1),
    ("aes", "cbc-plain64", 24, 1024, 2**40),
    ("aes", "cbc-plain64be", 32, 512, 2**33 + 7),
    ("aes", "cbc-essiv:sha256", 16, 512, 0),
    ("aes", "cbc-essiv:sha256", 32, 4096, 2**32 + 8),
    ("aes", "cbc-essiv:md5", 32, 512, 77),
    ("aes", "cbc-benbi", 32, 512, 5),
    ("aes", "cbc-eboiv", 16, 512, 1000),
    ("aes", "cbc-eboiv", 32, 4096, 1000),
    ("aes", "xts-plain", 32, 512, 2**32 + 3),
    ("aes", "xts-plain64", 32, 512, 2**32 + 3),
    ("aes", "xts-plain64", 48, 512, 1),
    ("aes", "xts-plain64", 64, 512, 2**63 + 1),
    ("aes", "xts-plain64", 64, 1024, 6),
    ("aes", "xts-plain64", 64, 2048, 6),
    ("aes", "xts-plain64", 64, 4096, 8),
    ("aes", "xts-plain64be", 64, 512, 8),
    ("aes", "xts-null", 64, 512, 8),
    ("aes", "xts-benbi", 64, 512, 8),
    ("aes", "xts-essiv:sha256", 64, 512, 8),
    ("aes", "ctr-plain64", 32, 512, 1),
    ("aes", "ctr-plain64be", 16, 512, 2**64 - 3),
    ("aes", "ecb", 16, 512, 3),
    ("aes", "lrw-benbi", 32, 512, 12345),
    ("aes", "lrw-benbi", 40, 512, 1),
    ("aes", "lrw-plain64", 48, 512, 2**32),
    ("aes", "lrw-plain64be", 48, 4096, 2**64 - 17),
    ("serpent", "cbc-essiv:sha256", 16, 512, 4),
    ("serpent", "cbc-plain64", 24, 512, 4),
    ("serpent", "xts-plain64", 64, 4096, 24),
    ("serpent", "lrw-benbi", 32, 512, 4),
    ("twofish", "cbc-plain64", 16, 512, 4),
    ("twofish", "cbc-essiv:sha256", 32, 2048, 4),
    ("twofish", "xts-plain64", 64, 512, 4),
    ("twofish", "ctr-plain64", 32, 512, 4),
    ("camellia", "xts-plain64", 32, 512, 4),
    ("camellia", "cbc-essiv:sha256", 24, 512, 4),
    ("camellia", "ecb", 32, 512, 4),
    ("sm4", "xts-plain64", 32, 512, 4),
    ("sm4", "cbc-essiv:md5", 16, 512, 4),
    ("sm4", "ecb", 16, 512, 4),
    ("cast5", "cbc-plain64", 16, 512, 2**32 + 4),
    ("cast5", "cbc-plain64be", 16, 512, 2**32 + 4),
    ("cast5", "cbc-plain", 16, 512, 2**32 + 4),
    ("cast5", "cbc-essiv:md5", 16, 512, 2**32 + 4),
    ("cast5", "cbc-benbi", 16, 512, 4),
    ("cast5", "ctr-plain64be", 16, 512, 2**64 - 3),
    ("cast5", "ecb", 16, 512, 4),
]


def diffuse(hash_name, block):
    size = hashlib.new(hash_name).digest_size
    return b"".join(
        hashlib.new(hash_name, i.to_bytes(4, "big") + piece)
        .digest()[:len(piece)] for i, piece in enumerate(blocks(block, size)))


def merge(hash_name, key_size, stripes):
    state = bytes(key_size)
    pieces = blocks(pattern(key_size * stripes), key_size)
    for piece in pieces[:-1]:
        state = diffuse(hash_name, xor(state, piece))
    return xor(state, pieces[-1])


def main():
    print("""#ifndef PELLUCID_TESTS_CRYPTO_REFERENCE_VECTORS_H_
#define PELLUCID_TESTS_CRYPTO_REFERENCE_VECTORS_H_

#include <cstddef>
#include <cstdint>

// Written by reference_vectors.py; change that.

namespace pellucid::crypto {

// Bytes (i * 7 + i / 256) mod 256, encrypted as sectors from `first_sector` on
// with a key of bytes 255 - i. `sha256` is the digest of the ciphertext.
struct SectorVector {
  const char* cipher;
  const char* mode;
  size_t key_size;
  size_t sector_size;
  uint64_t first_sector;
  const char* sha256;
};
""")
    print(f"inline constexpr size_t kSectorVectorSectors = {SECTORS};\n")
    print("// clang-format off")
    print("inline constexpr SectorVector kSectorVectors[] = {")
    for cipher, cipher_mode, key_size, sector_size, first_sector in CASES:
        mode, _, iv_spec = cipher_mode.partition("-")
        key = bytes(255 - i for i in range(key_size))
        data = encrypt(cipher, mode, iv_spec, key, sector_size, first_sector,
                       pattern(SECTORS * sector_size))
        print(f'    {{"{cipher}", "{cipher_mode}", {key_size}, {sector_size}, '
              f'{first_sector}U,\n     "{hashlib.sha256(data).hexdigest()}"}},')
    print("};\n// clang-format on\n")
    print("""// The key that the same bytes, `stripes` times `key_size` of them, merge to.
struct MergeVector {
  const char* hash;
  size_t key_size;
  uint32_t stripes;
  const char* key;
};
""")
    print("// clang-format off")
    print("inline constexpr MergeVector kMergeVectors[] = {")
    for hash_name, key_size, stripes in [
            ("sha1", 16, 4), ("sha1", 64, 5), ("sha256", 64, 3),
            ("sha512", 32, 2), ("ripemd160", 32, 7), ("sha3-256", 64, 2)]:
        key = merge(hash_name, key_size, stripes)
        print(f'    {{"{hash_name}", {key_size}, {stripes},\n'
              f'     "{key.hex()}"}},')
    print("""};
// clang-format on

}  // namespace pellucid::crypto

#endif  // PELLUCID_TESTS_CRYPTO_REFERENCE_VECTORS_H_""")


if __name__ == "__main__":
    main()
