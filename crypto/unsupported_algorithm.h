#ifndef PELLUCID_CRYPTO_UNSUPPORTED_ALGORITHM_H_
#define PELLUCID_CRYPTO_UNSUPPORTED_ALGORITHM_H_

#include <stdexcept>

namespace pellucid::crypto {

// A cipher, mode, IV generator or hash that this build does not have, or a key
// length that the algorithm does not take. The text names the algorithm and
// says what would be supported.
class UnsupportedAlgorithm : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_UNSUPPORTED_ALGORITHM_H_
