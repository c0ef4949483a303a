#include "tools/kdf_arguments.h"

#include <fmt/core.h>

#include <boost/program_options/value_semantic.hpp>
#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/errors.h"
#include "tools/byte_size.h"
#include "tools/number_option.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

std::optional<uint32_t> ParseCost(std::string_view option,
                                  std::string_view text) {
  if (text.empty()) return std::nullopt;
  return ParseNumber(option, text);
}

// A number of KiB, or a size with a suffix.
std::optional<uint32_t> ParseMemory(std::string_view option,
                                    const std::string& text) {
  if (text.find_first_not_of("0123456789") == std::string::npos) {
    return ParseCost(option, text);
  }
  const uint64_t bytes = ParseByteSize(option, text);
  return ParseNumber(option, std::to_string(bytes >> 10));
}

}  // namespace

void KdfArguments::AddTo(po::options_description& options) {
  const auto text = [](std::string* value, const char* name) {
    return po::value(value)->value_name(name);
  };
  options.add_options()  //
      ("kdf", text(&kdf_, "pbkdf2|argon2i|argon2id"),
       "how the passphrase becomes a key; default: argon2id; LUKS1 has "
       "pbkdf2 only")  //
      ("iter-time", text(&iter_time_, "MS"),
       "how long unlocking takes on this machine; default: 2000")  //
      ("pbkdf2-iterations", text(&iterations_, "N"),
       "do not measure, take N iterations")                                  //
      ("argon2-time", text(&argon2_time_, "N"), "do not measure, N passes")  //
      ("argon2-memory", text(&argon2_memory_, "KIB"),
       "memory of Argon2, in KiB, or with a suffix, such as 1G")  //
      ("argon2-cpus", text(&argon2_cpus_, "N"), "lanes of Argon2");
}

std::string KdfArguments::GivenArgon2Option() const {
  if (!argon2_time_.empty()) return "argon2-time";
  if (!argon2_memory_.empty()) return "argon2-memory";
  return argon2_cpus_.empty() ? "" : "argon2-cpus";
}

std::string KdfArguments::GivenOption() const {
  if (!kdf_.empty()) return "kdf";
  if (!iter_time_.empty()) return "iter-time";
  if (!iterations_.empty()) return "pbkdf2-iterations";
  return GivenArgon2Option();
}

luks::KdfCost KdfArguments::ToKdfCost(unsigned version,
                                      const std::string& hash) const {
  const auto refuse = [](const std::string& option, std::string_view why) {
    throw UsageError(fmt::format("--{} is for {}", option, why));
  };
  luks::KdfCost cost;
  cost.type = version == 1 ? "pbkdf2" : "argon2id";
  if (!kdf_.empty()) cost.type = kdf_;
  const bool is_argon2 = cost.type == "argon2id" || cost.type == "argon2i";
  if (!is_argon2 && cost.type != "pbkdf2") {
    throw UsageError(
        fmt::format("--kdf takes argon2id, argon2i or pbkdf2, not '{}'", kdf_));
  }
  const std::string argon2_option = GivenArgon2Option();
  if (version == 1 && is_argon2) {
    refuse("kdf " + cost.type, "LUKS2: LUKS1 has pbkdf2 only");
  }
  if (!is_argon2 && !argon2_option.empty()) {
    refuse(argon2_option, version == 1
                              ? "LUKS2: LUKS1 has pbkdf2 only"
                              : "--kdf argon2id or argon2i, not pbkdf2");
  }
  if (is_argon2 && !iterations_.empty()) {
    refuse("pbkdf2-iterations", "--kdf pbkdf2, not Argon2");
  }
  if (!hash.empty()) cost.hash = hash;
  cost.iter_time_ms =
      ParseCost("iter-time", iter_time_).value_or(cost.iter_time_ms);
  cost.iterations = ParseCost("pbkdf2-iterations", iterations_);
  cost.time = ParseCost("argon2-time", argon2_time_);
  cost.memory_kib = ParseMemory("argon2-memory", argon2_memory_);
  cost.cpus = ParseCost("argon2-cpus", argon2_cpus_);
  return cost;
}

}  // namespace pellucid::cli
