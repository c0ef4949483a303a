#ifndef PELLUCID_TESTS_FUZZ_FUZZ_TARGET_H_
#define PELLUCID_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "engine/errors.h"

// A fuzz target is a program with libFuzzer's main() around this.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace pellucid {

// Ends the fuzzer, which then keeps the input.
[[noreturn]] inline void Fail(const std::string& why) {
  std::fprintf(stderr, "fuzz target: %s\n", why.c_str());
  std::abort();
}

inline void Require(bool holds, const char* what) {
  if (!holds) Fail(what);
}

// Runs what an image may refuse. Gives false if it throws an Error; any other
// exception ends the fuzzer.
template <typename Action>
bool Attempt(Action action) {
  try {
    action();
    return true;
  } catch (const Error& error) {
    Require(*error.what() != '\0', "an error without a text");
    return false;
  }
}

}  // namespace pellucid

#endif  // PELLUCID_TESTS_FUZZ_FUZZ_TARGET_H_
