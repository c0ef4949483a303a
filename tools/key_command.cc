#include "tools/key_command.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <boost/program_options/errors.hpp>
#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <optional>
#include <string_view>

#include "engine/errors.h"
#include "engine/luks/keyslot_editor.h"
#include "engine/luks/unlock.h"
#include "engine/luks_header_file.h"
#include "engine/printable.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/header_arguments.h"
#include "tools/info_json.h"
#include "tools/kdf_arguments.h"
#include "tools/keyslot_list.h"
#include "tools/new_passphrase.h"
#include "tools/number_option.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid key list|add|remove|change [OPTION]... IMAGE",
    .description =
        "Manages the passphrases of a LUKS volume, each in a keyslot of its\n"
        "own: in IMAGE, or in the detached header that --header names.\n"
        "\n"
        "  list      shows the keyslots in use; asks for no passphrase\n"
        "  add       lets a new passphrase open the volume\n"
        "  remove    removes a keyslot and its key material: --keyslot N, or\n"
        "            the one that the passphrase opens\n"
        "  change    replaces the passphrase of a keyslot: --keyslot N, or "
        "the\n"
        "            one that the passphrase opens\n"
        "\n"
        "If it is interrupted, the old passphrases work, or the new ones do.",
    .operands = {"list|add|remove|change", "IMAGE"},
    .common_options = {"keyslot", "key-file", "new-key-file", "header", "json"},
};

// Everything that may be said after `pellucid key`. Not synchronised.
struct KeyArguments {
  CommandSandbox sandbox;
  HeaderArguments header;
  NewPassphraseArguments new_passphrase{"new-"};
  KdfArguments kdf;
  std::string hash;
  std::string keyslot;
  std::string priority;
  bool force = false;
  bool json = false;
  bool quiet = false;

  void AddTo(po::options_description& options);
  std::optional<unsigned> ParseKeyslot() const;
  std::optional<luks::Priority> ParsePriority() const;
  luks::NewKeyslot ToNewKeyslot(unsigned version) const;
  // Refuses options that mean nothing to `action`, and contradictions.
  void CheckFor(const std::string& action) const;
};

void KeyArguments::AddTo(po::options_description& options) {
  const auto text = [](std::string* value, const char* name) {
    return po::value(value)->value_name(name);
  };
  header.AddPartitionTo(options);
  header.AddPlaceTo(options);
  header.AddPassphrasesTo(options);
  options.add_options()  //
      ("keyslot", text(&keyslot, "N"),
       "the keyslot to remove or to change, or to put the new passphrase "
       "into")  //
      ("priority", text(&priority, "ignore|normal|prefer"),
       "when the new keyslot is tried (LUKS2): only if it is named, in turn, "
       "or first")  //
      ("hash", text(&hash, "NAME"), "of pbkdf2 (LUKS2); default: sha256");
  new_passphrase.AddTo(options);
  kdf.AddTo(options);
  options.add_options()  //
      ("force", po::bool_switch(&force),
       "remove even the last keyslot; with --keyslot, without a passphrase")  //
      ("json", po::bool_switch(&json), "list as JSON for programs");
  AddQuietTo(options, &quiet);
  header.AddSharingTo(options);
  sandbox.AddTo(options);
}

std::optional<unsigned> KeyArguments::ParseKeyslot() const {
  if (keyslot.empty()) return std::nullopt;
  return ParseNumber("keyslot", keyslot, 0, kGreatestKeyslot);
}

std::optional<luks::Priority> KeyArguments::ParsePriority() const {
  if (priority.empty()) return std::nullopt;
  constexpr std::array<std::string_view, 3> kNames = {"ignore", "normal",
                                                      "prefer"};
  const auto found = std::ranges::find(kNames, priority);
  if (found == kNames.end()) {
    throw UsageError(fmt::format(
        "--priority takes ignore, normal or prefer, not '{}'", priority));
  }
  return static_cast<luks::Priority>(found - kNames.begin());
}

luks::NewKeyslot KeyArguments::ToNewKeyslot(unsigned version) const {
  if (version == 1 && !hash.empty()) {
    throw UsageError(
        "--hash is for LUKS2: a LUKS1 volume has one hash for all keyslots");
  }
  luks::NewKeyslot wanted = {.id = ParseKeyslot(),
                             .kdf = kdf.ToKdfCost(version, hash),
                             .priority = ParsePriority()};
  luks::CheckKdfCost(wanted.kdf);
  return wanted;
}

void KeyArguments::CheckFor(const std::string& action) const {
  const auto refuse_if = [&](bool given, std::string_view option) {
    if (!given) return;
    throw UsageError(
        fmt::format("--{} means nothing to `pellucid key {}`", option, action));
  };
  refuse_if(action != "list" && json, "json");
  refuse_if(action != "list" && header.ToOpenOptions("").force_share,
            "force-share");
  refuse_if(action != "remove" && force, "force");
  if (action == "add" || action == "change") {
    new_passphrase.Check();
    if (new_passphrase.key_file() == "-" &&
        header.uses_of_standard_input() > 0) {
      throw UsageError("standard input can be a key file once only");
    }
    return;
  }
  for (const std::string& option :
       {new_passphrase.GivenOption(), kdf.GivenOption()}) {
    refuse_if(!option.empty(), option);
  }
  refuse_if(!hash.empty(), "hash");
  refuse_if(!priority.empty(), "priority");
}

void Say(const KeyArguments& arguments, const std::string& file,
         const std::string& text) {
  if (!arguments.quiet) fmt::print("{}: {}\n", Printable(file), text);
}

int List(const KeyArguments& arguments, const std::string& image) {
  const ReadableHeaderFile opened =
      OpenHeaderForReading(arguments.header.ToOpenOptions(image));
  const LuksInfo info = luks::Describe(opened.located, opened.range.place);
  if (arguments.json) {
    fmt::print("{}", FormatLuksAsJson(info));
    return 0;
  }
  WarnAboutHeader(opened.located);
  fmt::print("{}", FormatKeyslotList(info));
  return 0;
}

// A header open for changes.
class KeyCommand {
 public:
  KeyCommand(const KeyArguments& arguments, const std::string& image)
      : arguments_(arguments),
        opened_(OpenHeaderForWriting(arguments.header.ToOpenOptions(image))),
        editor_(opened_.header) {
    for (const std::string& warning : opened_.warnings) Warn(warning);
    WarnAboutHeader(editor_.located());
  }

  int Add() {
    const luks::NewKeyslot wanted = arguments_.ToNewKeyslot(version());
    const luks::UnlockedVolume volume = Unlock(std::nullopt);
    const unsigned id = editor_.Add(volume.key, NewPassphrase(), wanted);
    Say(arguments_, name(), fmt::format("keyslot {} added", id));
    return 0;
  }

  int Remove() {
    std::optional<unsigned> id = arguments_.ParseKeyslot();
    if (id) editor_.CheckRemoval(*id, arguments_.force);
    if (!id || !arguments_.force) {
      // Whoever removes a keyslot can open the volume.
      const luks::UnlockedVolume volume = Unlock(std::nullopt);
      if (!id) id = KeyslotOf(volume);
    }
    editor_.Remove(*id, arguments_.force);
    Say(arguments_, name(),
        fmt::format("keyslot {} removed, its key material overwritten{}", *id,
                    opened_.guest ? " where the disk has it; what snapshots, "
                                    "backing files or compressed clusters have "
                                    "of it stays"
                                  : ""));
    return 0;
  }

  int Change() {
    luks::NewKeyslot wanted = arguments_.ToNewKeyslot(version());
    const luks::UnlockedVolume volume = Unlock(wanted.id);
    const unsigned id = wanted.id ? *wanted.id : KeyslotOf(volume);
    wanted.id.reset();
    const unsigned changed =
        editor_.Change(id, volume.key, NewPassphrase(), wanted);
    Say(arguments_, name(),
        changed == id ? fmt::format("keyslot {} changed", id)
                      : fmt::format("keyslot {} added instead of {}, which is "
                                    "removed",
                                    changed, id));
    return 0;
  }

 private:
  unsigned version() const { return editor_.located().header.version; }
  const std::string& name() const { return opened_.header.file_name; }

  luks::UnlockedVolume Unlock(std::optional<unsigned> keyslot) const {
    return luks::UnlockVolume(
        editor_.located(), name(), keyslot,
        *arguments_.header.MakePassphraseSource(),
        arguments_.header.ToOpenOptions("").max_kdf_memory);
  }

  crypto::SecretBytes NewPassphrase() const {
    return arguments_.new_passphrase.Get(name());
  }

  static unsigned KeyslotOf(const luks::UnlockedVolume& volume) {
    if (volume.keyslot) return *volume.keyslot;
    throw UsageError(
        "a volume key does not tell the keyslot; name it with --keyslot");
  }

  const KeyArguments& arguments_;
  const WritableHeaderFile opened_;
  luks::KeyslotEditor editor_;
};

}  // namespace

int RunKeyCommand(const std::vector<std::string>& words) {
  KeyArguments arguments;
  po::options_description options;
  arguments.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return 0;
  const std::string& action = (*operands)[0];
  const std::string& image = (*operands)[1];
  constexpr std::array<std::string_view, 4> kActions = {"list", "add", "remove",
                                                        "change"};
  if (std::ranges::find(kActions, action) == kActions.end()) {
    throw po::error(
        fmt::format("'{}' is not list, add, remove or change", action));
  }
  arguments.CheckFor(action);
  if (action != "list") {
    arguments.sandbox.MayWriteImage(arguments.header.ToOpenOptions(image));
  }
  arguments.sandbox.Enter();
  if (action == "list") return List(arguments, image);
  KeyCommand command(arguments, image);
  if (action == "add") return command.Add();
  return action == "remove" ? command.Remove() : command.Change();
}

}  // namespace pellucid::cli
