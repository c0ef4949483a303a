#ifndef PELLUCID_TESTS_ENGINE_THROWN_TEXT_H_
#define PELLUCID_TESTS_ENGINE_THROWN_TEXT_H_

#include <gtest/gtest.h>

#include <string>

namespace pellucid {

// The text of the `Exception` that `call` throws. Fails the test, and gives a
// text that matches nothing, if it throws another or none.
template <typename Exception, typename Call>
std::string ThrownText(Call call) {
  try {
    call();
  } catch (const Exception& e) {
    return e.what();
  } catch (const std::exception& e) {
    ADD_FAILURE() << "threw another exception: " << e.what();
    return "";
  }
  ADD_FAILURE() << "threw nothing";
  return "";
}

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_THROWN_TEXT_H_
