#ifndef PELLUCID_ENGINE_QCOW2_FINDINGS_H_
#define PELLUCID_ENGINE_QCOW2_FINDINGS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace pellucid::qcow2 {

// What a check found wrong with an image. A hostile image can be wrong in more
// places than there is memory, so only the first kMaxTexts are kept as text.
// For one thread at a time.
class Findings {
 public:
  static constexpr size_t kMaxTexts = 1000;

  // `make_text` is called only if the text is kept. `times` is how many
  // references meet the same fault.
  template <typename MakeText>
  void Add(MakeText&& make_text, uint64_t times = 1) {
    count_ += times < UINT64_MAX - count_ ? times : UINT64_MAX - count_;
    if (texts_.size() < kMaxTexts) texts_.push_back(make_text());
  }

  uint64_t count() const { return count_; }
  // Each names the file, the place and the field.
  const std::vector<std::string>& texts() const { return texts_; }

 private:
  uint64_t count_ = 0;
  std::vector<std::string> texts_;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_FINDINGS_H_
