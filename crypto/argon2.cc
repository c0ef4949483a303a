#include "crypto/argon2.h"

#include <argon2.h>

#include <algorithm>
#include <new>
#include <stdexcept>
#include <thread>

namespace pellucid::crypto {

void Argon2(Argon2Type type, std::span<const std::byte> passphrase,
            std::span<const std::byte> salt, const Argon2Cost& cost,
            std::span<std::byte> out) {
  // The library takes its input by non-const pointers but only wipes it when
  // asked to by a flag.
  const auto bytes = [](std::span<const std::byte> span) {
    return reinterpret_cast<uint8_t*>(const_cast<std::byte*>(span.data()));
  };
  argon2_context context = {};
  context.out = reinterpret_cast<uint8_t*>(out.data());
  context.outlen = static_cast<uint32_t>(out.size());
  context.pwd = bytes(passphrase);
  context.pwdlen = static_cast<uint32_t>(passphrase.size());
  context.salt = bytes(salt);
  context.saltlen = static_cast<uint32_t>(salt.size());
  context.t_cost = cost.time;
  context.m_cost = cost.memory_kib;
  context.lanes = cost.lanes;
  context.threads =
      std::max(std::min(std::thread::hardware_concurrency(), cost.lanes), 1U);
  context.version = ARGON2_VERSION_13;
  context.flags = ARGON2_DEFAULT_FLAGS;
  const int result =
      argon2_ctx(&context, type == Argon2Type::kI ? Argon2_i : Argon2_id);
  if (result == ARGON2_MEMORY_ALLOCATION_ERROR) throw std::bad_alloc();
  if (result != ARGON2_OK) {
    throw std::invalid_argument(argon2_error_message(result));
  }
}

}  // namespace pellucid::crypto
