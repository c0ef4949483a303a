// Checks an image and repairs it: whatever is wrong with it, no byte of the
// guest changes.

#include "engine/qcow2/image_check.h"
#include "engine/qcow2/image_repair.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/fuzzed_image.h"

using namespace pellucid;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  SparseDevice file({data, size});
  const auto check = [&] {
    qcow2::CheckImage(file, "disk.qcow2",
                      qcow2::ReadHeader(file, "disk.qcow2"));
  };
  if (!Attempt(check)) return 0;
  decltype(SeenContent(file)) before;
  const bool opens = Attempt([&] { before = SeenContent(*OpenToRead(file)); });
  for (int i = 0; i < 3; ++i) {
    if (!Attempt([&] { qcow2::RepairImage(file, "disk.qcow2"); })) break;
    Require(Attempt(check), "what was repaired cannot be checked any more");
    if (!opens) continue;
    Attempt([&] {
      const auto after = SeenContent(*OpenToRead(file));
      Require(before.size() == after.size(), "a repair has changed the size");
      for (size_t piece = 0; piece < before.size(); ++piece) {
        Require(!before[piece] || before[piece] == after[piece],
                "a repair has changed what the guest sees");
      }
    });
  }
  return 0;
}
