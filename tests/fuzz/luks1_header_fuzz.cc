// A LUKS1 header: the input says where it stands.

#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/fuzzed_header.h"

using namespace pellucid;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr luks::Place kPlaces[] = {
      luks::Place::kInPlace, luks::Place::kDetached, luks::Place::kEmbedded};
  SparseDevice file({data, size});
  const unsigned choice = SparseDevice::ForTarget({data, size});
  ExerciseHeader(file, kPlaces[(choice & 0xff) % 3], choice);
  return 0;
}
