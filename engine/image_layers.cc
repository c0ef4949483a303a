#include "engine/image_layers.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <system_error>
#include <utility>

#include "engine/disk_partition.h"
#include "engine/errors.h"
#include "engine/luks/luks_device.h"
#include "engine/luks/unlock.h"
#include "engine/named_file.h"
#include "engine/qcow2/qcow2_image.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;

// L2 tables of all layers together: enough for random reads over 64 GiB of the
// top layer with 64 KiB clusters, and half of what is left for each below.
constexpr uint64_t kL2CacheBytes = 16 << 20;
constexpr uint64_t kMinL2CacheBytes = 256 << 10;

// Images in a backing chain. Each layer opens, reads and closes the one below
// on the stack, and the depth is whatever the images say; libvirt has the same
// limit.
constexpr size_t kMaxChainLength = 200;

// Containers that would be shown as they are if they were taken for raw.
struct ForeignContainer {
  const char* name;
  size_t byte;
  std::string_view magic;
};
constexpr std::array kForeignContainers = {
    ForeignContainer{"VMDK", 0, "KDMV"},
    ForeignContainer{"VMDK descriptor", 0, "# Disk DescriptorFile"},
    ForeignContainer{"VHD", 0, "conectix"},
    ForeignContainer{"VHDX", 0, "vhdxfile"},
    ForeignContainer{"VDI", 64, "\x7f\x10\xda\xbe"},
    ForeignContainer{"QED", 0, std::string_view("QED\0", 4)},
    ForeignContainer{"Parallels", 0, "WithoutFreeSpace"},
    ForeignContainer{"EWF", 0, "EVF\x09\x0d\x0a\xff"},
};

ContainerFormat FormatNamed(const std::string& name) {
  return name.empty()      ? ContainerFormat::kAuto
         : name == "qcow2" ? ContainerFormat::kQcow2
                           : ContainerFormat::kRaw;
}

void RefuseToWriteCorrupt(const qcow2::Header& header,
                          const std::string& name) {
  if (header.has(qcow2::kCorrupt)) {
    throw CorruptImage(fmt::format(
        "{}: is marked as corrupt and therefore not changed; repair it with "
        "`pellucid check --repair all {}`, or save what it holds with "
        "--read-only",
        name, name));
  }
}

// Is `named`, which is `file`, a file beside `image`? A link beside it that
// leads elsewhere is not, nor is a hidden file: the image may lie where the
// user's settings are.
bool StandsBeside(const struct stat& file, const fs::path& named,
                  const fs::path& image) {
  std::error_code error;
  const fs::path name = fs::canonical(named, error).filename();
  if (error || name.native().starts_with('.')) return false;
  const fs::path real_image = fs::canonical(image, error);
  return std::ranges::any_of(
      std::array{image, real_image}, [&](const fs::path& beside) {
        struct stat status = {};
        return lstat((beside.parent_path() / name).c_str(), &status) == 0 &&
               S_ISREG(status.st_mode) &&
               HostFileId::Of(status) == HostFileId::Of(file);
      });
}

class LayerOpener {
 public:
  LayerOpener(const OpenOptions& options, IfNamedFileFails if_named_file_fails)
      : options_(options),
        named_file_rules_(options.allowed_paths),
        if_named_file_fails_(if_named_file_fails) {}

  std::unique_ptr<ImageLayer> Open(const fs::path& path, ContainerFormat format,
                                   const std::string& snapshot) {
    auto layer = std::make_unique<ImageLayer>();
    layer->path = path;
    const bool is_top = chain_.empty();
    layer->file = LayerFile::Open(
        path, options_.writable && is_top ? FileAccess::kWrite : ReadAccess(),
        is_top ? HostFileCheck() : CheckOfNamed(path));
    // As a backing file it is zeros; as an image it is a mistake.
    if (is_top && layer->file.device().size() == 0) {
      throw CorruptImage(fmt::format("{}: is empty (0 bytes)", path.native()));
    }
    if (!layer->file.keeps_access_time()) {
      layer->warnings.push_back(fmt::format(
          "{}: belongs to another user, so that its access time may change",
          path.native()));
    }
    const bool is_qcow2 = IsQcow2(layer->file.device(), path, format, options_);
    if (is_qcow2) {
      OpenQcow2(*layer, snapshot);
    } else if (!snapshot.empty()) {
      throw UsageError(fmt::format(
          "{}: is not a qcow2 image and has no snapshots", path.native()));
    }
    if (HasChosenDataFile(*layer) &&
        !(is_qcow2 && layer->qcow2->has(qcow2::kExternalDataFile))) {
      throw UsageError(fmt::format(
          "{}: has no external data file, so that --data-file makes no sense",
          path.native()));
    }
    return layer;
  }

 private:
  FileAccess ReadAccess() const {
    return options_.force_share ? FileAccess::kReadShared : FileAccess::kRead;
  }

  HostFileCheck CheckOfNamed(const fs::path& path) const {
    return [this, &path](int path_fd, const struct stat& status) {
      named_file_rules_.Check(path_fd, status, path);
    };
  }

  void OpenQcow2(ImageLayer& layer, const std::string& snapshot) {
    const std::string name = layer.path.native();
    layer.qcow2 = qcow2::ReadHeader(layer.file.device(), name);
    const qcow2::Header& header = *layer.qcow2;
    if (layer.file.writable) RefuseToWriteCorrupt(header, name);
    if (header.has(qcow2::kCorrupt)) {
      layer.warnings.push_back(fmt::format(
          "{}: is marked as corrupt; what can still be read is shown", name));
    }
    layer.snapshots = qcow2::ReadSnapshots(layer.file.device(), name, header);
    if (layer.file.writable && header.has(qcow2::kDirty)) {
      layer.repair = std::make_unique<qcow2::RefcountRepair>(
          layer.file.device(), name, header, layer.snapshots);
    }
    if (!snapshot.empty()) {
      layer.shown_snapshot =
          qcow2::FindSnapshot(layer.snapshots, snapshot, name);
    }
    if (header.crypto_header) {
      layer.embedded_luks = luks::ReadLuksHeader(
          layer.file.device(), header.crypto_header->offset,
          header.crypto_header->length, name, luks::Place::kEmbedded);
    }
    try {
      if (header.has(qcow2::kExternalDataFile)) OpenDataFile(layer);
      if (!header.backing_file.empty()) OpenBacking(layer);
    } catch (const Error& error) {
      if (if_named_file_fails_ == IfNamedFileFails::kThrow) throw;
      layer.backing_error = error.what();
    }
  }

  // Opens what `layer` names; an error says who named it.
  template <typename OpenFile>
  static auto Named(const ImageLayer& layer, const char* role,
                    const std::string& name, OpenFile open) {
    try {
      return open();
    } catch (const IoError& error) {
      throw IoError(error.host_errno(),
                    fmt::format("{}: its {} file \"{}\": {}",
                                layer.path.native(), role, name, error.what()));
    } catch (const NotAllowed& error) {
      throw NotAllowed(fmt::format("{}: its {} file \"{}\": {}",
                                   layer.path.native(), role, name,
                                   error.what()));
    } catch (const UsageError& error) {
      // Not what the user said, but what the image says.
      throw CorruptImage(fmt::format("{}: its {} file \"{}\": {}",
                                     layer.path.native(), role, name,
                                     error.what()));
    }
  }

  void CheckAllowed(const ImageLayer& layer, const char* role,
                    const std::string& name) const {
    if (options_.allow_backing) return;
    throw NotAllowed(
        fmt::format("{}: needs its {} file \"{}\", which --no-backing forbids",
                    layer.path.native(), role, name));
  }

  // Does the user say which file it is?
  bool HasChosenDataFile(const ImageLayer& layer) const {
    return !options_.data_file.empty() && chain_.empty() &&
           layer.path == options_.image;
  }

  void OpenDataFile(ImageLayer& layer) {
    const FileAccess access =
        layer.file.writable ? FileAccess::kWrite : ReadAccess();
    if (HasChosenDataFile(layer)) {
      layer.data_file = LayerFile::Open(options_.data_file, access);
      layer.data_file_path = options_.data_file;
      return;
    }
    const std::string& name = layer.qcow2->data_file;
    if (name.empty()) {
      throw Unsupported(
          fmt::format("{}: has an external data file but does not name it "
                      "(no header extension 0x44415441); say --data-file FILE",
                      layer.path.native()));
    }
    CheckAllowed(layer, "data", name);
    const NamedFile named = ResolveNamedFile(name, "raw", layer.path);
    if (named.format != "raw") {
      throw Unsupported(fmt::format(
          "{}: the format \"{}\" of its data file \"{}\" is not supported; raw "
          "is",
          layer.path.native(), named.format, name));
    }
    struct stat status = {};
    if (layer.file.writable && stat(named.path.c_str(), &status) == 0) {
      CheckMayBeWritten(layer, status, named.path);
    }
    layer.data_file = Named(layer, "data", name, [&] {
      return LayerFile::Open(named.path, access, CheckOfNamed(named.path));
    });
    layer.data_file_path = named.path;
    // It may have become another one.
    if (layer.file.writable) {
      CheckMayBeWritten(layer, layer.data_file.host_stat(), named.path);
    }
  }

  static void CheckMayBeWritten(const ImageLayer& layer,
                                const struct stat& data_file,
                                const fs::path& named) {
    if (StandsBeside(data_file, named, layer.path)) return;
    throw Unsupported(fmt::format(
        "{}: its data file \"{}\" is hidden or in another folder, and is "
        "written only if you name it, for an image may name any file; say "
        "--data-file FILE if it is the right one, or --read-only",
        layer.path.native(), layer.qcow2->data_file));
  }

  void OpenBacking(ImageLayer& layer) {
    const std::string& name = layer.qcow2->backing_file;
    CheckAllowed(layer, "backing", name);
    const NamedFile named =
        ResolveNamedFile(name, layer.qcow2->backing_format, layer.path);
    CheckChain(layer, named.path);
    layer.backing = Named(layer, "backing", name, [&] {
      return Open(named.path, FormatNamed(named.format), "");
    });
    if (named.format.empty() && layer.backing->qcow2) {
      layer.warnings.push_back(fmt::format(
          "{}: does not say the format of its backing file \"{}\", which looks "
          "like qcow2 and is taken for it",
          layer.path.native(), name));
    }
    if (named.format == "luks") {
      ImageLayer& volume = *layer.backing;
      volume.luks_volume = luks::ReadLuksHeader(
          volume.file.device(), 0, volume.file.device().size(),
          volume.path.native(), luks::Place::kInPlace);
      luks::CheckPayload(*volume.luks_volume, volume.file.device().size(),
                         volume.path.native());
    }
  }

  // No loop and no chain without end.
  void CheckChain(const ImageLayer& layer, const fs::path& backing) {
    const struct stat& own = layer.file.host_stat();
    chain_.emplace_back(own.st_dev, own.st_ino);
    if (chain_.size() == kMaxChainLength) {
      throw Unsupported(fmt::format(
          "{}: has a backing file but is already number {} of its chain; "
          "longer chains are not supported",
          layer.path.native(), kMaxChainLength));
    }
    struct stat next;
    if (stat(backing.c_str(), &next) != 0) return;  // Opening it will tell.
    if (std::ranges::find(chain_, std::pair(next.st_dev, next.st_ino)) ==
        chain_.end()) {
      return;
    }
    throw CorruptImage(fmt::format(
        "{}: its backing file \"{}\" leads back to an image above it: the "
        "chain is a loop",
        layer.path.native(), layer.qcow2->backing_file));
  }

  const OpenOptions& options_;
  const NamedFileRules named_file_rules_;
  const IfNamedFileFails if_named_file_fails_;
  std::vector<std::pair<dev_t, ino_t>> chain_;  // Images above, and this one.
};

// QEMU's legacy AES: AES-128-CBC with the passphrase itself as the key, cut or
// filled with zeros to 16 bytes. Any passphrase is taken; nothing can check it.
crypto::SecretBytes LegacyAesKey(const std::string& layer,
                                 PassphraseSource& passphrases) {
  const std::optional<crypto::SecretBytes> passphrase =
      passphrases.Get(layer, 0);
  if (!passphrase) {
    throw WrongPassphrase(
        fmt::format("{}: needs a passphrase (legacy AES)", layer));
  }
  crypto::SecretBytes key(16);
  std::ranges::copy(
      passphrase->bytes().first(std::min(key.size(), passphrase->size())),
      key.bytes().begin());
  passphrases.Accepted();
  return key;
}

AssembledLayers Assemble(std::unique_ptr<ImageLayer> layer,
                         uint64_t l2_cache_bytes) {
  if (layer->luks_volume && !layer->key.empty()) {
    // Only a backing image is said to be one, and those are never written.
    return AssembledLayers::ReadOnly(std::make_unique<luks::LuksDevice>(
        std::unique_ptr<BlockDevice>(std::move(layer->file.read_only)),
        layer->luks_volume->header, layer->key.bytes()));
  }
  if (!layer->qcow2) {
    if (layer->file.writable) {
      return AssembledLayers::Writable(std::move(layer->file.writable));
    }
    return AssembledLayers::ReadOnly(std::move(layer->file.read_only));
  }
  const uint64_t share = std::max(l2_cache_bytes / 2, kMinL2CacheBytes);
  qcow2::Qcow2Image::Parts parts;
  parts.file_name = layer->path.native();
  parts.file = std::move(layer->file.read_only);
  parts.writable_file = std::move(layer->file.writable);
  parts.header = *layer->qcow2;
  parts.snapshots = std::move(layer->snapshots);
  parts.snapshot = layer->shown_snapshot;
  parts.data_file = std::move(layer->data_file.read_only);
  parts.writable_data_file = std::move(layer->data_file.writable);
  if (layer->backing) {
    parts.backing = Assemble(std::move(layer->backing), share).device;
  }
  parts.cipher = ClusterCipher(*layer);
  parts.l2_cache_bytes = share;
  parts.repair = std::move(layer->repair);
  parts.wipes_freed = layer->wipes_freed;
  const bool is_writable = parts.writable_file != nullptr;
  auto image = std::make_unique<qcow2::Qcow2Image>(std::move(parts));
  qcow2::Qcow2Image* const qcow2 = image.get();
  // In two statements: cppcheck takes the other branch for a use after a move.
  AssembledLayers layers;
  if (is_writable) {
    layers = AssembledLayers::Writable(std::move(image));
  } else {
    layers = AssembledLayers::ReadOnly(std::move(image));
  }
  layers.qcow2 = qcow2;
  return layers;
}

// How to open `path` all the same; a backing file has no option for that.
std::string_view RawRemedy(const fs::path& path, const OpenOptions& options) {
  if (path == options.header) {
    return ", or say --header-format raw to take its bytes as they are";
  }
  if (path == options.image) {
    return ", or say --format raw to see its bytes as they are";
  }
  return "";
}

}  // namespace

bool IsQcow2(BlockDevice& file, const fs::path& path, ContainerFormat format,
             const OpenOptions& options) {
  if (format == ContainerFormat::kRaw) return false;
  std::array<std::byte, 512> buffer;
  const std::span start =
      std::span(buffer).first(std::min<uint64_t>(buffer.size(), file.size()));
  file.Read(0, start);
  if (qcow2::HasMagic(start)) return true;
  if (format == ContainerFormat::kQcow2) {
    throw CorruptImage(fmt::format(
        "{}: header field magic (byte 0) is not that of qcow2", path.native()));
  }
  const std::string_view text(reinterpret_cast<const char*>(start.data()),
                              start.size());
  for (const ForeignContainer& foreign : kForeignContainers) {
    if (text.substr(std::min(foreign.byte, text.size()))
            .starts_with(foreign.magic)) {
      throw Unsupported(
          fmt::format("{}: is a {} image; convert it with qemu-img{}",
                      path.native(), foreign.name, RawRemedy(path, options)));
    }
  }
  return false;
}

std::unique_ptr<ImageLayer> OpenLayers(const fs::path& path,
                                       ContainerFormat format,
                                       const std::string& snapshot,
                                       const OpenOptions& options,
                                       IfNamedFileFails if_named_file_fails) {
  return LayerOpener(options, if_named_file_fails).Open(path, format, snapshot);
}

void UnlockLayers(ImageLayer& top, std::optional<unsigned> keyslot,
                  PassphraseSource& passphrases,
                  std::optional<uint64_t> max_kdf_memory) {
  for (ImageLayer* layer = &top; layer != nullptr;
       layer = layer->backing.get(), keyslot.reset()) {
    const std::string name = layer->path.native();
    if (layer->embedded_luks) {
      layer->key = luks::Unlock(*layer->embedded_luks, name, keyslot,
                                passphrases, max_kdf_memory);
    } else if (layer->luks_volume) {
      layer->key = luks::Unlock(*layer->luks_volume, name, keyslot, passphrases,
                                max_kdf_memory);
    } else if (layer->qcow2 &&
               layer->qcow2->crypt_method == qcow2::CryptMethod::kAes) {
      layer->key = LegacyAesKey(name, passphrases);
    }
  }
}

std::unique_ptr<crypto::SectorCipher> ClusterCipher(const ImageLayer& layer) {
  if (layer.key.empty()) return nullptr;
  const crypto::CipherSpec legacy_aes = {
      .cipher = "aes", .mode = "cbc", .iv = "plain64", .iv_hash = ""};
  return crypto::MakeSectorCipher(
      layer.embedded_luks
          ? layer.embedded_luks->header.segments.front().encryption->Spec()
          : legacy_aes,
      layer.key.bytes());
}

AssembledLayers AssembleLayers(std::unique_ptr<ImageLayer> top) {
  return Assemble(std::move(top), kL2CacheBytes);
}

void CheckOptions(const OpenOptions& options) {
  if (!options.header.empty() && options.encryption == Encryption::kNone) {
    throw UsageError(fmt::format(
        "{}: --header makes no sense with --encryption none: the payload's "
        "ciphertext needs no header",
        options.header.native()));
  }
  const ExpectedHeader& expected = options.expected_header;
  if (expected.any() && options.encryption == Encryption::kNone) {
    throw UsageError(fmt::format(
        "{}: no header is looked at with --encryption none, so none can be "
        "expected",
        options.image.native()));
  }
  if (!expected.sha256.empty() && options.header.empty()) {
    throw UsageError("--expect-header-sha256 needs --header");
  }
  if (!options.writable) return;
  const auto refuse = [&](const char* reason) {
    throw UsageError(fmt::format("{}: {}; --read-only is needed",
                                 options.image.native(), reason));
  };
  if (!options.snapshot.empty()) refuse("a snapshot cannot be written");
  if (options.encryption == Encryption::kNone) {
    refuse("the ciphertext is not written by itself (--encryption none)");
  }
  if (options.force_share) {
    refuse("--force-share reads what another program may be writing");
  }
}

void CutToPartition(AssembledLayers& disk, unsigned number,
                    const std::string& disk_name) {
  const Partition partition = FindPartition(*disk.device, number, disk_name);
  if (disk.writable != nullptr) {
    disk = AssembledLayers::Writable(
        std::make_unique<DiskPartition>(disk.TakeWritable(), partition));
  } else {
    disk = AssembledLayers::ReadOnly(
        std::make_unique<DiskPartition>(std::move(disk.device), partition));
  }
}

}  // namespace pellucid
