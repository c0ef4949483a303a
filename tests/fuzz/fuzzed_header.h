#ifndef PELLUCID_TESTS_FUZZ_FUZZED_HEADER_H_
#define PELLUCID_TESTS_FUZZ_FUZZED_HEADER_H_

#include "engine/luks/located_header.h"
#include "tests/fuzz/sparse_device.h"

namespace pellucid {

// Does everything with a LUKS header at the start of `file` that the program
// does: reads, checks, describes and copies it, opens the payload behind it,
// and, if `for_target` (SparseDevice::ForTarget()) says so and no key
// derivation costs more than some milliseconds, tries a passphrase (bit 8) and
// changes keyslots (bit 9).
void ExerciseHeader(SparseDevice& file, luks::Place place, unsigned for_target);

}  // namespace pellucid

#endif  // PELLUCID_TESTS_FUZZ_FUZZED_HEADER_H_
