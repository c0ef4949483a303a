#include "tools/cache_arguments.h"

#include <fmt/core.h>

#include <boost/program_options/value_semantic.hpp>

#include "engine/errors.h"
#include "tools/byte_size.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

CacheMode ParseMode(const std::string& mode) {
  if (mode == "writeback") return CacheMode::kWriteback;
  if (mode == "writethrough") return CacheMode::kWritethrough;
  if (mode == "none") return CacheMode::kNone;
  throw UsageError(fmt::format(
      "--cache takes writeback, writethrough or none, not '{}'", mode));
}

}  // namespace

void CacheArguments::AddTo(po::options_description& options) {
  options.add_options()  //
      ("cache",
       po::value(&mode_)
           ->value_name("writeback|writethrough|none")
           ->default_value("writeback"),
       "gather writes until a flush, make each durable at once, or pass them "
       "on as they come")  //
      ("cache-size", po::value(&size_)->value_name("SIZE"),
       "gather at most SIZE bytes of writes; default 64M");
}

CacheOptions CacheArguments::ToCacheOptions() const {
  CacheOptions options = {.mode = ParseMode(mode_)};
  if (size_.empty()) return options;
  if (options.mode != CacheMode::kWriteback) {
    throw UsageError(
        fmt::format("--cache-size makes no sense with --cache {}", mode_));
  }
  options.bytes = ParseByteSize("cache-size", size_);
  if (options.bytes < kLeastCacheBytes || options.bytes > kGreatestCacheBytes) {
    throw UsageError(fmt::format("--cache-size {}: takes {} to {}", size_,
                                 FormatByteSize(kLeastCacheBytes),
                                 FormatByteSize(kGreatestCacheBytes)));
  }
  return options;
}

}  // namespace pellucid::cli
