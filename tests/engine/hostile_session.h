#ifndef PELLUCID_TESTS_ENGINE_HOSTILE_SESSION_H_
#define PELLUCID_TESTS_ENGINE_HOSTILE_SESSION_H_

#include <gtest/gtest.h>

#include <exception>

#include "engine/errors.h"
#include "tests/engine/run_cost.h"

namespace pellucid {

// Does something with a hostile image: it may refuse it with an Error, but in
// time, and without much memory.
template <typename Session>
void ExpectBoundedSession(const char* name, Session session) {
  SCOPED_TRACE(name);
  const RunCost cost;
  try {
    session();
  } catch (const Error& error) {
    EXPECT_STRNE(error.what(), "");
  } catch (const std::exception& error) {
    ADD_FAILURE() << "threw what is no Error: " << error.what();
  }
  EXPECT_LT(cost.time(), kMaxRunTime);
  EXPECT_LT(cost.bytes(), kMaxRunBytes);
}

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_HOSTILE_SESSION_H_
