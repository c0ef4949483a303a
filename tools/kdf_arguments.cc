#include "tools/kdf_arguments.h"

#include <fmt/core.h>

#include <boost/program_options/value_semantic.hpp>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/errors.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

std::optional<uint32_t> ParseNumber(std::string_view option,
                                    std::string_view text) {
  if (text.empty()) return std::nullopt;
  uint32_t number = 0;
  const char* end = text.data() + text.size();
  const auto [parsed_to, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || parsed_to != end || number == 0) {
    throw UsageError(fmt::format("--{} takes a number from 1 to {}, not '{}'",
                                 option, UINT32_MAX, text));
  }
  return number;
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
      ParseNumber("iter-time", iter_time_).value_or(cost.iter_time_ms);
  cost.iterations = ParseNumber("pbkdf2-iterations", iterations_);
  cost.time = ParseNumber("argon2-time", argon2_time_);
  cost.memory_kib = ParseNumber("argon2-memory", argon2_memory_);
  cost.cpus = ParseNumber("argon2-cpus", argon2_cpus_);
  return cost;
}

}  // namespace pellucid::cli
