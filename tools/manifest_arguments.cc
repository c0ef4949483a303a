#include "tools/manifest_arguments.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>
#include <boost/program_options/value_semantic.hpp>

#include "engine/errors.h"
#include "tools/byte_size.h"
#include "tools/copy_arguments.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

}  // namespace

void ManifestArguments::AddTo(po::options_description& options) {
  const auto text = [](std::string* value, const char* name) {
    return po::value(value)->value_name(name);
  };
  options.add_options()  //
      ("manifest", text(&file_, "FILE"),
       "write the hash of every chunk to FILE, for `pellucid verify`")  //
      ("chunk-size", text(&chunk_size_, "N"),
       "of the manifest: 4K to 64M, default 1M")  //
      ("chunk-hash", text(&chunk_hash_, "NAME,..."),
       "of the manifest: hashes of each chunk, default sha256");
}

void ManifestArguments::Check(bool overwrite) const {
  if (!wanted()) {
    if (!chunk_size_.empty() || !chunk_hash_.empty()) {
      throw UsageError("--chunk-size and --chunk-hash need --manifest");
    }
    return;
  }
  ManifestHeader header;
  Describe(header);
  struct stat status;
  if (!overwrite && stat(file_.c_str(), &status) == 0) {
    throw UsageError(
        fmt::format("{}: the file exists; --force overwrites it", file_));
  }
}

void ManifestArguments::CheckIsNone(
    const std::vector<HostFileId>& files) const {
  struct stat status;
  if (!wanted() || stat(file_.c_str(), &status) != 0) return;
  if (std::ranges::find(files, HostFileId::Of(status)) != files.end()) {
    throw UsageError(fmt::format(
        "{}: this is the image or the copy; the manifest needs a file of its "
        "own",
        file_));
  }
}

void ManifestArguments::Describe(ManifestHeader& header) const {
  if (!chunk_size_.empty()) {
    header.chunk_size = ParseByteSize("chunk-size", chunk_size_);
    if (!IsChunkSize(header.chunk_size)) {
      throw UsageError(fmt::format(
          "--chunk-size takes a multiple of {} up to {} bytes, not {}",
          kMinChunkSize, kMaxChunkSize, chunk_size_));
    }
  }
  header.algorithms = ParseHashNames(
      "chunk-hash", chunk_hash_.empty() ? "sha256" : chunk_hash_);
  if (header.algorithms.size() > kMaxManifestAlgorithms) {
    throw UsageError(fmt::format("--chunk-hash takes at most {} hashes",
                                 kMaxManifestAlgorithms));
  }
}

}  // namespace pellucid::cli
