#ifndef PELLUCID_CRYPTO_TARGET_REGION_H_
#define PELLUCID_CRYPTO_TARGET_REGION_H_

// Between the two, functions (templates and their instances too) may use
// instruction sets beyond the baseline that the program is built for. Headers
// of other people are to be included before, or their inline functions would
// use them as well.
#define PELLUCID_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define PELLUCID_BEGIN_TARGET(features)                                   \
  PELLUCID_PRAGMA(clang attribute push(__attribute__((target(features))), \
                                       apply_to = function))
#define PELLUCID_END_TARGET PELLUCID_PRAGMA(clang attribute pop)
#else
#define PELLUCID_BEGIN_TARGET(features) \
  PELLUCID_PRAGMA(GCC push_options) PELLUCID_PRAGMA(GCC target(features))
#define PELLUCID_END_TARGET PELLUCID_PRAGMA(GCC pop_options)
#endif

#endif  // PELLUCID_CRYPTO_TARGET_REGION_H_
