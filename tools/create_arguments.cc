#include "tools/create_arguments.h"

#include <fmt/core.h>

#include <array>
#include <boost/program_options/value_semantic.hpp>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "crypto/hash.h"
#include "crypto/sector_cipher.h"
#include "crypto/unsupported_algorithm.h"
#include "engine/errors.h"
#include "tools/byte_size.h"
#include "tools/number_option.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

auto Text(std::string* value, const char* name) {
  return po::value(value)->value_name(name);
}

// `value` if it is one of `choices`, and the first of them if it is empty.
std::string Choice(std::string_view option, const std::string& value,
                   std::initializer_list<const char*> choices) {
  if (value.empty()) return *choices.begin();
  std::string list;
  for (const char* choice : choices) {
    if (value == choice) return value;
    list += list.empty() ? "" : ", ";
    list += choice;
  }
  throw UsageError(
      fmt::format("--{} takes one of {}, not '{}'", option, list, value));
}

struct GivenOption {
  std::string_view name;
  bool given;
};

void RefuseIfGiven(std::initializer_list<GivenOption> options,
                   std::string_view why) {
  for (const GivenOption& option : options) {
    if (option.given) {
      throw UsageError(fmt::format("--{} {}", option.name, why));
    }
  }
}

void CheckCipherTakesKey(const crypto::CipherSpec& spec, size_t key_bytes) {
  crypto::MakeSectorCipher(spec, std::vector<std::byte>(key_bytes));
}

// The longest key that the cipher takes and others make as well: 256 bits, in
// XTS twice that.
uint32_t UsualKeyBytes(const crypto::CipherSpec& spec) {
  constexpr std::array<uint32_t, 4> kShorter = {48, 32, 24, 16};
  try {
    CheckCipherTakesKey(spec, 64);
    return 64;
  } catch (const crypto::UnsupportedAlgorithm&) {
  }
  for (const uint32_t key_bytes : kShorter) {
    try {
      CheckCipherTakesKey(spec, key_bytes);
      return key_bytes;
    } catch (const crypto::UnsupportedAlgorithm&) {
    }
  }
  // No length helps: let it say why.
  CheckCipherTakesKey(spec, 32);
  return 32;
}

uint32_t ParseKeyBytes(const std::string& text) {
  const uint32_t bits = ParseNumber("key-size", text, 8);
  if (bits % 8 != 0) {
    throw UsageError(
        fmt::format("--key-size takes whole bytes in bits, such as 256 or 512, "
                    "not '{}'",
                    text));
  }
  return bits / 8;
}

void ChooseCipher(const std::string& cipher, const std::string& key_size,
                  luks::FormatOptions& options) {
  const std::string name = cipher.empty() ? "aes-xts-plain64" : cipher;
  const size_t dash = name.find('-');
  if (dash == std::string::npos) {
    throw UsageError(fmt::format(
        "--cipher takes a cipher, a mode and an IV generator, such as "
        "aes-xts-plain64 or aes-cbc-essiv:sha256, not '{}'",
        cipher));
  }
  options.cipher = name.substr(0, dash);
  options.mode = name.substr(dash + 1);
  try {
    const crypto::CipherSpec spec =
        crypto::ParseCipherSpec(options.cipher, options.mode);
    if (key_size.empty()) {
      options.key_bytes = UsualKeyBytes(spec);
    } else {
      options.key_bytes = ParseKeyBytes(key_size);
      CheckCipherTakesKey(spec, options.key_bytes);
    }
  } catch (const crypto::UnsupportedAlgorithm& error) {
    throw UsageError(fmt::format("--cipher {}{}{}: {}", name,
                                 key_size.empty() ? "" : " --key-size ",
                                 key_size, error.what()));
  }
}

std::string ParseHash(const std::string& name) {
  if (name.empty()) return "sha256";
  try {
    crypto::DigestSize(name);
  } catch (const crypto::UnsupportedAlgorithm& error) {
    throw UsageError(fmt::format("--hash {}: {}", name, error.what()));
  }
  return name;
}

uint32_t ParseSectorSize(const std::string& text) {
  if (text.empty()) return 512;
  const uint64_t size = ParseByteSize("sector-size", text);
  for (const uint32_t possible : {512u, 1024u, 2048u, 4096u}) {
    if (size == possible) return possible;
  }
  throw UsageError(fmt::format(
      "--sector-size takes one of 512, 1024, 2048, 4096, not '{}'", text));
}

}  // namespace

void CreateArguments::AddTo(po::options_description& options) {
  options.add_options()  //
      ("format", Text(&format_, "qcow2|raw"),
       "container of the image; default: qcow2")  //
      ("encryption", Text(&encryption_, "luks1|luks2|none"),
       "default: luks1 inside qcow2, luks2 for a raw image or a detached "
       "header")  //
      ("detached-header", Text(&detached_header_, "HDR"),
       "put the LUKS header into a file of its own, HDR")  //
      ("payload-exists", po::bool_switch(&payload_exists_),
       "make only HDR, for a FILE (or block device) that is there; what is in "
       "it reads as noise until it is written anew through HDR")  //
      ("preallocation", Text(&preallocation_, "off|full"),
       "full stores the whole disk, as zeros, so that it takes all of its "
       "space "
       "now; default: off")  //
      ("force", po::bool_switch(&force_), "overwrite existing files");
  passphrase_.AddTo(options);
  AddFormatOptions(options);
  AddLuksOptions(options);
  kdf_.AddTo(options);
}

void CreateArguments::AddFormatOptions(po::options_description& options) {
  options.add_options()  //
      ("cluster-size", Text(&cluster_size_, "N"),
       "of qcow2: 512 to 2M; default: 64K")  //
      ("refcount-bits", Text(&refcount_bits_, "N"),
       "of qcow2: 1, 2, 4, 8, 16, 32 or 64; default: 16")  //
      ("extended-l2", po::bool_switch(&extended_l2_),
       "32 subclusters in each cluster, for clusters of 16K or more")  //
      ("lazy-refcounts", po::bool_switch(&lazy_refcounts_),
       "let writers delay updates of refcounts")  //
      ("compression-type", Text(&compression_type_, "zlib|zstd"),
       "of clusters that are compressed later; default: zlib")  //
      ("compat", Text(&compat_, "1.1|0.10"),
       "version of qcow2: 3 (1.1, the default) or 2 (0.10)")  //
      ("backing", Text(&backing_, "FILE"),
       "backing file, as the image shall name it: relative to its folder; its "
       "size is the default for SIZE")  //
      ("backing-format", Text(&backing_format_, "qcow2|raw|luks"),
       "what the backing file is; always needed with it");
}

void CreateArguments::AddLuksOptions(po::options_description& options) {
  options.add_options()  //
      ("cipher", Text(&cipher_, "SPEC"),
       "cipher, mode and IV generator, such as aes-cbc-essiv:sha256; default: "
       "aes-xts-plain64")  //
      ("key-size", Text(&key_size_, "BITS"),
       "of the volume key; default: 256, in XTS 512, or what the cipher "
       "takes")  //
      ("hash", Text(&hash_, "NAME"),
       "of PBKDF2 and the anti-forensic split; default: sha256")  //
      ("sector-size", Text(&sector_size_, "N"),
       "of LUKS2: 512 (the default), 1024, 2048 or 4096")                     //
      ("uuid", Text(&uuid_, "UUID"), "of the volume; default: a random one")  //
      ("label", Text(&label_, "TEXT"), "of the volume (LUKS2)");
}

bool CreateArguments::preallocates() const {
  return Choice("preallocation", preallocation_, {"off", "full"}) == "full";
}

bool CreateArguments::is_raw() const {
  return Choice("format", format_, {"qcow2", "raw"}) == "raw";
}

CreateArguments::Encrypted CreateArguments::encrypted() const {
  const bool embedded =
      !is_raw() && !payload_exists_ && detached_header_.empty();
  const std::string choice =
      Choice("encryption",
             encryption_.empty() ? (embedded ? "luks1" : "luks2") : encryption_,
             {"luks1", "luks2", "none"});
  return choice == "luks1"   ? Encrypted::kLuks1
         : choice == "luks2" ? Encrypted::kLuks2
                             : Encrypted::kNo;
}

void CreateArguments::CheckLuksOptions(Encrypted encrypted) const {
  if (encrypted == Encrypted::kNo) {
    const std::string passphrase = passphrase_.GivenOption();
    const std::string kdf = kdf_.GivenOption();
    RefuseIfGiven({{passphrase, !passphrase.empty()},
                   {kdf, !kdf.empty()},
                   {"cipher", !cipher_.empty()},
                   {"key-size", !key_size_.empty()},
                   {"hash", !hash_.empty()},
                   {"sector-size", !sector_size_.empty()},
                   {"uuid", !uuid_.empty()},
                   {"label", !label_.empty()}},
                  "is for encryption, not for --encryption none");
    return;
  }
  passphrase_.Check();
  if (encrypted == Encrypted::kLuks1) {
    RefuseIfGiven(
        {{"label", !label_.empty()}, {"sector-size", !sector_size_.empty()}},
        "is for --encryption luks2, not luks1");
  }
}

void CreateArguments::CheckPayloadOptions(const std::string& size) const {
  if (preallocates()) {
    RefuseIfGiven({{"force", force_}},
                  "does not go with --preallocation full: if that fails, what "
                  "was there is lost; remove it before");
    RefuseIfGiven(
        {{"payload-exists", payload_exists_}, {"backing", !backing_.empty()}},
        "does not go with --preallocation full, which would hide "
        "what is there");
  }
  const std::initializer_list<GivenOption> only_qcow2 = {
      {"cluster-size", !cluster_size_.empty()},
      {"refcount-bits", !refcount_bits_.empty()},
      {"extended-l2", extended_l2_},
      {"lazy-refcounts", lazy_refcounts_},
      {"compression-type", !compression_type_.empty()},
      {"compat", !compat_.empty()},
      {"backing", !backing_.empty()},
      {"backing-format", !backing_format_.empty()}};
  if (payload_exists_) {
    RefuseIfGiven({{"format", !format_.empty()}},
                  "does not go with --payload-exists: nothing is made but the "
                  "header");
    RefuseIfGiven(only_qcow2,
                  "does not go with --payload-exists: nothing is made but the "
                  "header");
    if (!size.empty()) {
      throw UsageError(fmt::format(
          "SIZE '{}' does not go with --payload-exists: FILE has a size",
          size));
    }
    if (detached_header_.empty()) {
      throw UsageError(
          "--payload-exists needs --detached-header HDR, the file to make");
    }
  } else if (is_raw()) {
    RefuseIfGiven(only_qcow2, "is for --format qcow2, not raw");
  }
  if (!backing_.empty() && backing_format_.empty()) {
    throw UsageError(
        "--backing needs --backing-format qcow2, raw or luks; whoever writes "
        "to a raw disk could make it look like another format");
  }
  if (backing_.empty() && !backing_format_.empty()) {
    throw UsageError("--backing-format needs --backing FILE");
  }
}

NewImage CreateArguments::ToNewImage(const std::string& file,
                                     const std::string& size) const {
  const Encrypted encrypted = this->encrypted();
  CheckPayloadOptions(size);
  CheckLuksOptions(encrypted);
  NewImage wanted;
  wanted.image = file;
  wanted.format = is_raw() ? ContainerFormat::kRaw : ContainerFormat::kQcow2;
  if (!size.empty()) wanted.size = ParseByteSize("SIZE", size);
  wanted.header = detached_header_;
  wanted.payload_exists = payload_exists_;
  wanted.overwrite = force_;
  wanted.qcow2 = ToQcow2Options();
  if (encrypted != Encrypted::kNo) {
    wanted.luks = ToLuksOptions(encrypted == Encrypted::kLuks1 ? 1 : 2);
  }
  return wanted;
}

qcow2::CreateOptions CreateArguments::ToQcow2Options() const {
  qcow2::CreateOptions options;
  if (!cluster_size_.empty()) {
    options.cluster_size = ParseByteSize("cluster-size", cluster_size_);
  }
  if (!refcount_bits_.empty()) {
    options.refcount_bits = ParseNumber("refcount-bits", refcount_bits_);
  }
  options.extended_l2 = extended_l2_;
  options.lazy_refcounts = lazy_refcounts_;
  if (Choice("compression-type", compression_type_, {"zlib", "zstd"}) ==
      "zstd") {
    options.compression_type = qcow2::CompressionType::kZstd;
  }
  options.version = Choice("compat", compat_, {"1.1", "0.10"}) == "1.1" ? 3 : 2;
  options.backing_file = backing_;
  if (!backing_.empty()) {
    options.backing_format =
        Choice("backing-format", backing_format_, {"qcow2", "raw", "luks"});
  }
  return options;
}

luks::FormatOptions CreateArguments::ToLuksOptions(unsigned version) const {
  luks::FormatOptions options;
  options.version = version;
  ChooseCipher(cipher_, key_size_, options);
  options.hash = ParseHash(hash_);
  options.sector_size = ParseSectorSize(sector_size_);
  options.uuid = uuid_;
  options.label = label_;
  options.kdf = kdf_.ToKdfCost(version, options.hash);
  return options;
}

}  // namespace pellucid::cli
