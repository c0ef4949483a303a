#ifndef PELLUCID_TESTS_CRYPTO_REFERENCE_VECTORS_H_
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

inline constexpr size_t kSectorVectorSectors = 3;

// clang-format off
inline constexpr SectorVector kSectorVectors[] = {
    {"aes", "cbc-null", 16, 512, 9U,
     "6553bd8b8b6bcc3373f679e4fa4818453c1acfdb64bb1b917366d0832c44daae"},
    {"aes", "cbc-plain", 32, 512, 4294967295U,
     "1a787d9c6cac26f708b60487dae1f742f6194a6058a611d6042d33b9e8d0ba32"},
    {"aes", "cbc-plain64", 16, 512, 4294967295U,
     "e1495af348e4308ee51d511cb2b9ecadf1457b329a09438effd2ffced4bb3370"},
    {"aes", "cbc-plain64", 24, 1024, 1099511627776U,
     "a55598e94416e63b2f1b7c8e167f5ad303519b92853a71d2e5fc9dca3be68ba2"},
    {"aes", "cbc-plain64be", 32, 512, 8589934599U,
     "63669d65991e6cbf3f8eccfbf43bcf5b5a6d71cd86cdfb1a53a0b8da721919c7"},
    {"aes", "cbc-essiv:sha256", 16, 512, 0U,
     "393016806b884866a372a660337d6e136a981184ae4652678e260eace35bec5f"},
    {"aes", "cbc-essiv:sha256", 32, 4096, 4294967304U,
     "a3fbdbb9893cac2dfa063bb9cfe962187e34747eeb7de8c84f018c08c10405f5"},
    {"aes", "cbc-essiv:md5", 32, 512, 77U,
     "daccd6b6b6d34f8342ba1c3766cd4ad756e2b7782ef78844755fb861c9edf041"},
    {"aes", "cbc-benbi", 32, 512, 5U,
     "76bed85256368fa486c9a0c5859ec6de32e7c4d0de19734dd37d7bde14436063"},
    {"aes", "cbc-eboiv", 16, 512, 1000U,
     "bd6d82024b25cf7a1ad7e31b501b8432a839f62e17e42fc1d5c0c7aa34d3a00b"},
    {"aes", "cbc-eboiv", 32, 4096, 1000U,
     "77c7e9c10c3837a8803c446af5e318794482dbf766c7ae8d05fa53ba7be8b919"},
    {"aes", "xts-plain", 32, 512, 4294967299U,
     "2952db2ab155e928f30fe6d3412fc0cacb1101d420fb7f7d8f3b0d77ef5ebebd"},
    {"aes", "xts-plain64", 32, 512, 4294967299U,
     "8607a40a4000c5e25f497ac143345b56d0aef686e1d34ce81a1072971fd12814"},
    {"aes", "xts-plain64", 48, 512, 1U,
     "dabeeabc09cc9fcc9e8b4be29801c034f8fc77eadaa11762d72d44c621e6a437"},
    {"aes", "xts-plain64", 64, 512, 9223372036854775809U,
     "0def7aebc956afbb908bdc0fbfbafbeb560b29c2a2619f376da872578fbd9b23"},
    {"aes", "xts-plain64", 64, 1024, 6U,
     "cef6f09105e5a819e534bd7d24f6ccad4c0d24a01fa9429ca9bc611c6c2dd4e6"},
    {"aes", "xts-plain64", 64, 2048, 6U,
     "69635e79d73e7096b10cb1e85b1fd45772c73a507c046d70a62a3751942464a0"},
    {"aes", "xts-plain64", 64, 4096, 8U,
     "c7352d6c30a1c806908c769224522a0a7f75042976c20e71d615b511cb052668"},
    {"aes", "xts-plain64be", 64, 512, 8U,
     "6dacb76f47368f923a8653a62bd959440b9de605768bbd110cf3b29ec0cca2f4"},
    {"aes", "xts-null", 64, 512, 8U,
     "94587a90157db2037ab45407057f27806e3fdf689629fafe16259be946a978da"},
    {"aes", "xts-benbi", 64, 512, 8U,
     "8aa9c22a6078875030801a63cafffa9efecc2f9ad43b08e808a1257bf2a627be"},
    {"aes", "xts-essiv:sha256", 64, 512, 8U,
     "26dd80d72e241076e838a9978374a6a113aa0c40a9bc4b86780d423fdce2e4b6"},
    {"aes", "ctr-plain64", 32, 512, 1U,
     "956cb45a7d6c33ec79724d45b8f249e44ae8684ecc58776f84e81066f0ddd75d"},
    {"aes", "ctr-plain64be", 16, 512, 18446744073709551613U,
     "02f52b967e30721daca73431a53a9b72925fdf163ee7806a368ae3b602d2b260"},
    {"aes", "ecb", 16, 512, 3U,
     "04c1d13b4b070dccf48045a7ce2366ee56d0aba5d041cddcc5a8e67242ba6e8a"},
    {"aes", "lrw-benbi", 32, 512, 12345U,
     "691c052608c8b1c3a3c8ac0e7c8ac71e30b1943c00f52927e0015e815911995c"},
    {"aes", "lrw-benbi", 40, 512, 1U,
     "ebf203eb7bb5a00b3505d4e7e8d73d7a7bfec0d6e2a9c29182a1f7a798e08fd2"},
    {"aes", "lrw-plain64", 48, 512, 4294967296U,
     "5e2611cb4bd37f0a7b32f485697c70090cf9af695cb5f6f56afb614a1c7a7cfb"},
    {"aes", "lrw-plain64be", 48, 4096, 18446744073709551599U,
     "509bb2fbe212b56a65060087c26852a18d580e3b2a986bd6565c41586dd3d69f"},
    {"serpent", "cbc-essiv:sha256", 16, 512, 4U,
     "7ab235972bfd1517922297a41bf160d3d796b19ccbb609caa0a3abb0bf67bf8a"},
    {"serpent", "cbc-plain64", 24, 512, 4U,
     "c726d89ddabeba16074a37cb8ec7fb79be43224208ac6530e41917c801e54ca2"},
    {"serpent", "xts-plain64", 64, 4096, 24U,
     "72794677dbf29f8772eef82f5291ce745d300db27b8ed7b58a2eb8b33d9249bb"},
    {"serpent", "lrw-benbi", 32, 512, 4U,
     "28fd8ecefb5b548f8e7f31b5f10f97bead24c385ba61d4ba585bfab11ed29f2a"},
    {"twofish", "cbc-plain64", 16, 512, 4U,
     "f1fea5c06b704261e0a8e1a72110583a7693fc27a5e8e8b05afb94840f402c8f"},
    {"twofish", "cbc-essiv:sha256", 32, 2048, 4U,
     "68c6a9e4f0a21ba19a3c393849235cbe0ecabc961dc135a729f35712bc17c7fd"},
    {"twofish", "xts-plain64", 64, 512, 4U,
     "b0bbf3d2126988b17736f3efee54ad88d5c5056d48518c3691e897967386bd13"},
    {"twofish", "ctr-plain64", 32, 512, 4U,
     "5ee8dc91a3d97c94e7c774e6fd15d851bb2d08617802ab21325dc4f7b3035fb9"},
    {"camellia", "xts-plain64", 32, 512, 4U,
     "42cb8497009bb28a12cafba100294b541217ffd65fe64c1d9191c8d87da6955a"},
    {"camellia", "cbc-essiv:sha256", 24, 512, 4U,
     "eca55ab136d9ea1811ce3999dee6c26c78519ff842a509a4603174f1b677c20b"},
    {"camellia", "ecb", 32, 512, 4U,
     "5a2747d9fb1b0599613436b34ef37d454aceb6915636d5bae1fb2d7f282ed879"},
    {"sm4", "xts-plain64", 32, 512, 4U,
     "91070b935c9eece10405d4413b2ab7202a93f9a2e4fee46a83565fabcc97fcff"},
    {"sm4", "cbc-essiv:md5", 16, 512, 4U,
     "ef762026a74dfc188d7f867df1aa018b56c9f48727de452f5be8aaef59bd01e2"},
    {"sm4", "ecb", 16, 512, 4U,
     "25ad9eb34a4277d23996f970155704b36caeda0e5afdd4a3d2300a559b1f96de"},
    {"cast5", "cbc-plain64", 16, 512, 4294967300U,
     "14284d3574d7075480f78e39e96538bd1c04dfb26b78f29fa4ef9596c6703c79"},
    {"cast5", "cbc-plain64be", 16, 512, 4294967300U,
     "86cb7d270115e0fc2d9c7a330f015085c3ad2180f2b58cb4a287c19631470ac9"},
    {"cast5", "cbc-plain", 16, 512, 4294967300U,
     "07b1de7242f6ba2e934f2788428f54e1afcb7a8344d3c87273b11a96d8f4c664"},
    {"cast5", "cbc-essiv:md5", 16, 512, 4294967300U,
     "f05e7cb50a7ba00b749f0d0ad00a3d79a3795708332a1f92d087b2a69761dc4f"},
    {"cast5", "cbc-benbi", 16, 512, 4U,
     "fb9053e60d7d866b2c02df39398a0b9c226a26d171b5bf55a6027eaeba6206b8"},
    {"cast5", "ctr-plain64be", 16, 512, 18446744073709551613U,
     "aa6661677f3e6dceebbd7c1624ef2cd03dc717ec5f047a405d4c017c739c764a"},
    {"cast5", "ecb", 16, 512, 4U,
     "479e81f768f523a0d0f353d93c3cf23c08c9fa0a0f487a4df8eb7029e8e6e448"},
};
// clang-format on

// The key that the same bytes, `stripes` times `key_size` of them, merge to.
struct MergeVector {
  const char* hash;
  size_t key_size;
  uint32_t stripes;
  const char* key;
};

// clang-format off
inline constexpr MergeVector kMergeVectors[] = {
    {"sha1", 16, 4,
     "23dcda39c77ba08304b1d75494bb837a"},
    {"sha1", 64, 5,
     "ef92c23fe0c0a72747f15ecc86f13300e7b24196282fe536451f59b3d2a88b42cf07b3f827a4566a13858a25539e9bcca3c506ad2b2552fe9dcdc764c03d213d"},
    {"sha256", 64, 3,
     "7bccc6b04211c84f6239481c866372e5e638371f454653b89ae73229a833f1f4e172ce20c6fb619ac7b4fdb3f87c197311766b53f5204a8846f6cd7ea50f1e6c"},
    {"sha512", 32, 2,
     "8871932e011d2b2d322a1f8b86f237be57dc78eecd68b2e1dccdd13eaa26946d"},
    {"ripemd160", 32, 7,
     "df9d811e80ec0ba55fd052ebe337ed592aa53c1de172075c7d1f2275eb561968"},
    {"sha3-256", 64, 2,
     "82c8a6f835ac4abe791c62778a19ee30c1076bb8a4b3eefcfd6322b47defb0c8b3332eb0ae7fac2825bc6a6f2b44d5c08fdbee255166b20af46b13356e5fcb45"},
};
// clang-format on

}  // namespace pellucid::crypto

#endif  // PELLUCID_TESTS_CRYPTO_REFERENCE_VECTORS_H_
