#ifndef PELLUCID_TOOLS_CACHE_ARGUMENTS_H_
#define PELLUCID_TOOLS_CACHE_ARGUMENTS_H_

#include <boost/program_options/options_description.hpp>
#include <cstdint>
#include <string>

namespace pellucid::cli {

enum class CacheMode {
  kWriteback,     // Writes are gathered, and durable with the next flush.
  kWritethrough,  // Writes are durable when they return.
  kNone,          // Writes go down as they come.
};

inline constexpr uint64_t kDefaultCacheBytes = uint64_t{64} << 20;
inline constexpr uint64_t kLeastCacheBytes = uint64_t{1} << 20;
inline constexpr uint64_t kGreatestCacheBytes = uint64_t{1} << 40;

struct CacheOptions {
  CacheMode mode = CacheMode::kWriteback;
  uint64_t bytes = kDefaultCacheBytes;
};

// --cache and --cache-size, of the subcommands that write through the cache.
// Not synchronised.
class CacheArguments {
 public:
  CacheArguments() = default;
  CacheArguments(const CacheArguments&) = delete;
  CacheArguments& operator=(const CacheArguments&) = delete;

  // Adds the options to `options`, which keeps pointers into this object.
  void AddTo(boost::program_options::options_description& options);

  // What the user said. Call after parsing. Throws UsageError for a mode that
  // there is not, and for a size out of bounds or without a cache to have it.
  CacheOptions ToCacheOptions() const;

 private:
  std::string mode_ = "writeback";
  std::string size_;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_CACHE_ARGUMENTS_H_
