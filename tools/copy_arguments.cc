#include "tools/copy_arguments.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/program_options/value_semantic.hpp>
#include <thread>
#include <vector>

#include "crypto/unsupported_algorithm.h"
#include "engine/errors.h"
#include "tools/byte_size.h"
#include "tools/command_line.h"
#include "tools/number_option.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

constexpr unsigned kMaxThreads = 256;

}  // namespace

void CopyArguments::AddTo(po::options_description& options,
                          const char* offset_help, const char* hash_help,
                          const char* no_sparse_help) {
  const auto text = [](std::string* value, const char* name) {
    return po::value(value)->value_name(name);
  };
  options.add_options()                                            //
      ("offset", text(&offset_, "N"), offset_help)                 //
      ("hash", text(&hash_, "NAME"), hash_help)                    //
      ("no-sparse", po::bool_switch(&no_sparse_), no_sparse_help)  //
      ("threads", text(&threads_, "N"), "default: one for each processor");
  AddQuietTo(options, &quiet_);
}

uint64_t CopyArguments::Offset() const {
  return offset_.empty() ? 0 : ParseByteSize("offset", offset_);
}

unsigned CopyArguments::Threads() const {
  if (threads_.empty()) {
    return std::clamp(std::thread::hardware_concurrency(), 1u, kMaxThreads);
  }
  return ParseNumber("threads", threads_, 1, kMaxThreads);
}

std::unique_ptr<crypto::Hasher> CopyArguments::MakeHasher() const {
  if (hash_.empty()) return nullptr;
  try {
    return crypto::MakeHasher(hash_);
  } catch (const crypto::UnsupportedAlgorithm& error) {
    throw UsageError(fmt::format("--hash {}: {}", hash_, error.what()));
  }
}

void PrintHash(crypto::Hasher& hasher, const std::string& path,
               std::FILE* stream) {
  std::vector<std::byte> digest(hasher.digest_size());
  hasher.Final(digest);
  std::string line;
  for (const std::byte byte : digest) {
    line += fmt::format("{:02x}", static_cast<unsigned>(byte));
  }
  line += "  ";
  bool escaped = false;
  for (const char c : path) {
    const bool special = c == '\n' || c == '\\';
    escaped = escaped || special;
    line += !special ? std::string(1, c) : c == '\n' ? "\\n" : "\\\\";
  }
  fmt::print(stream, "{}{}\n", escaped ? "\\" : "", line);
}

}  // namespace pellucid::cli
