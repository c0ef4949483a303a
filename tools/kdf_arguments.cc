#include "tools/kdf_arguments.h"

#include <fmt/core.h>

#include <boost/program_options/value_semantic.hpp>
#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/errors.h"
#include "tools/number_option.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

std::optional<uint32_t> ParseCost(std::string_view option,
                                  std::string_view text) {
  if (text.empty()) return std::nullopt;
  return ParseNumber(option, text);
}

}  // namespace

void KdfArguments::AddTo(po::options_description& options) {
  const auto text = [](std::string* value, const char* name) {
    return po::value(value)->value_name(name);
  };
  options.add_options()  //
      ("kdf", text(&kdf_, "pbkdf2|argon2i|argon2id"),
       "how the new passphrase becomes a key; default: argon2id; LUKS1 has "
       "pbkdf2 only")                                                       //
      ("hash", text(&hash_, "NAME"), "of pbkdf2 (LUKS2); default: sha256")  //
      ("iter-time", text(&iter_time_, "MS"),
       "how long unlocking takes on this machine; default: 2000")  //
      ("pbkdf2-iterations", text(&iterations_, "N"),
       "do not measure, take N iterations")                                  //
      ("argon2-time", text(&argon2_time_, "N"), "do not measure, N passes")  //
      ("argon2-memory", text(&argon2_memory_, "KIB"),
       "memory of Argon2, in KiB")  //
      ("argon2-cpus", text(&argon2_cpus_, "N"), "lanes of Argon2");
}

luks::KdfCost KdfArguments::ToKdfCost(unsigned version) const {
  if (version == 1 && !hash_.empty()) {
    throw UsageError(
        "--hash is for LUKS2: a LUKS1 volume has one hash for all keyslots");
  }
  luks::KdfCost cost;
  cost.type = version == 1 ? "pbkdf2" : "argon2id";
  if (!kdf_.empty()) cost.type = kdf_;
  if (!hash_.empty()) cost.hash = hash_;
  cost.iter_time_ms =
      ParseCost("iter-time", iter_time_).value_or(cost.iter_time_ms);
  cost.iterations = ParseCost("pbkdf2-iterations", iterations_);
  cost.time = ParseCost("argon2-time", argon2_time_);
  cost.memory_kib = ParseCost("argon2-memory", argon2_memory_);
  cost.cpus = ParseCost("argon2-cpus", argon2_cpus_);
  return cost;
}

}  // namespace pellucid::cli
