#include "tools/copy_arguments.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/program_options/value_semantic.hpp>
#include <cctype>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>
#include <thread>

#include "crypto/hash.h"
#include "crypto/unsupported_algorithm.h"
#include "engine/errors.h"
#include "tools/byte_size.h"
#include "tools/command_line.h"
#include "tools/manifest_format.h"
#include "tools/number_option.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

constexpr unsigned kMaxThreads = 256;

std::string ParseHashName(const std::string& option, std::string name) {
  for (char& c : name) {
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  if (name == "blake2b") name = "blake2b-512";
  try {
    crypto::DigestSize(name);
  } catch (const crypto::UnsupportedAlgorithm& error) {
    throw UsageError(fmt::format("--{} {}: {}", option, name, error.what()));
  }
  return name;
}

// What the coreutils call the hash in a line with a tag.
std::string TagOf(const std::string& algorithm) {
  constexpr std::string_view kBlake2b = "blake2b";
  if (algorithm == "blake2b-512") return "BLAKE2b";
  if (algorithm.starts_with(kBlake2b)) {
    return "BLAKE2b" + algorithm.substr(kBlake2b.size());
  }
  std::string tag;
  for (const char c : algorithm) {
    tag += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return tag;
}

}  // namespace

void CopyArguments::AddTo(po::options_description& options,
                          const char* offset_help, const char* hash_help,
                          const char* no_sparse_help) {
  const auto text = [](std::string* value, const char* name) {
    return po::value(value)->value_name(name);
  };
  options.add_options()                                              //
      ("offset", text(&offset_, "N"), offset_help)                   //
      ("hash", text(&hash_, "NAME,..."), hash_help)                  //
      ("json", po::bool_switch(&json_), "print the hashes as JSON")  //
      ("no-sparse", po::bool_switch(&no_sparse_), no_sparse_help)    //
      ("threads", text(&threads_, "N"), "default: one for each processor");
  AddQuietTo(options, &quiet_);
}

uint64_t CopyArguments::Offset() const {
  return offset_.empty() ? 0 : ParseByteSize("offset", offset_);
}

unsigned ParseThreads(const std::string& value) {
  if (value.empty()) {
    return std::clamp(std::thread::hardware_concurrency(), 1u, kMaxThreads);
  }
  return ParseNumber("threads", value, 1, kMaxThreads);
}

unsigned CopyArguments::Threads() const { return ParseThreads(threads_); }

std::vector<std::string> CopyArguments::HashNames() const {
  if (hash_.empty() && json_) throw UsageError("--json needs --hash");
  if (hash_.empty()) return {};
  return ParseHashNames("hash", hash_);
}

void CopyArguments::PrintHashes(const std::vector<Digest>& digests,
                                const std::string& path, ByteRange part,
                                std::FILE* stream) const {
  fmt::print(stream, "{}",
             json_ ? FormatHashJson(digests, path, part)
                   : FormatHashLines(digests, path));
}

std::vector<std::string> ParseHashNames(const std::string& option,
                                        const std::string& names) {
  std::vector<std::string> algorithms;
  std::istringstream words(names);
  for (std::string word; std::getline(words, word, ',');) {
    const std::string name = ParseHashName(option, word);
    if (std::ranges::find(algorithms, name) != algorithms.end()) {
      throw UsageError(fmt::format("--{}: {} is named twice", option, name));
    }
    algorithms.push_back(name);
  }
  return algorithms;
}

std::string FormatHashLines(const std::vector<Digest>& digests,
                            const std::string& path) {
  std::string name;
  for (const char c : path) {
    if (c == '\n') {
      name += "\\n";
    } else if (c == '\\') {
      name += "\\\\";
    } else {
      name += c;
    }
  }
  std::string lines;
  for (const Digest& digest : digests) {
    if (name != path) lines += '\\';
    const std::string hex = FormatHex(digest.bytes);
    lines +=
        digests.size() == 1
            ? fmt::format("{}  {}\n", hex, name)
            : fmt::format("{} ({}) = {}\n", TagOf(digest.algorithm), name, hex);
  }
  return lines;
}

std::string FormatHashJson(const std::vector<Digest>& digests,
                           const std::string& path, ByteRange part) {
  using Json = nlohmann::ordered_json;
  Json object;
  object["file"] = path;
  object["offset"] = part.offset;
  object["length"] = part.length;
  object["hashes"] = Json::object();
  for (const Digest& digest : digests) {
    object["hashes"][digest.algorithm] = FormatHex(digest.bytes);
  }
  return object.dump(2, ' ', true, Json::error_handler_t::replace) + "\n";
}

}  // namespace pellucid::cli
