#include "tests/fuse/writable_stack_fixture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>

#include "tests/engine/programs_fixture.h"
#include "tests/engine/writable_image_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;

constexpr char kTop[] = "top.qcow2";
constexpr char kPassphrase[] = "open sesame";

// Decrypts the payload of a LUKS2 volume with 4096-byte sectors and XTS: no
// program here does that without the kernel's device mapper.
constexpr char kLuks2Reader[] = R"(
import struct, sys
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
image, key, plain, offset = sys.argv[1:]
key = open(key, 'rb').read()
with open(image, 'rb') as f, open(plain, 'wb') as out:
    f.seek(int(offset))
    sector = 0
    while data := f.read(4096):
        tweak = struct.pack('<QQ', sector, 0)
        aes = Cipher(algorithms.AES(key), modes.XTS(tweak)).decryptor()
        out.write(aes.update(data) + aes.finalize())
        sector += 8
)";

std::vector<std::string> Joined(std::vector<std::string> first,
                                const std::vector<std::string>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

}  // namespace

std::vector<StackKind> AllStackKinds() {
  return {
      {.name = "raw", .container = "raw"},
      {.name = "qcow2"},
      {.name = "aes", .encryption = "aes"},
      {.name = "aes_v2", .encryption = "aes", .version2 = true},
      {.name = "luks", .encryption = "luks"},
      {.name = "luks_uncached", .encryption = "luks", .cache = "none"},
      {.name = "luks_writethrough",
       .encryption = "luks",
       .cache = "writethrough"},
      {.name = "luks_512", .encryption = "luks", .cluster_size = 512},
      {.name = "luks_2m", .encryption = "luks", .cluster_size = 2 << 20},
      {.name = "luks_extended", .encryption = "luks", .extended_l2 = true},
      {.name = "luks_lazy", .encryption = "luks", .lazy_refcounts = true},
      {.name = "luks_compressed", .encryption = "luks", .compressed = true},
      {.name = "luks_snapshots", .encryption = "luks", .snapshots = true},
      {.name = "luks_data_file", .encryption = "luks", .data_file = true},
      {.name = "luks_over_aes",
       .encryption = "luks",
       .backing_encryption = "aes"},
      {.name = "extended_over_luks",
       .extended_l2 = true,
       .backing_encryption = "luks"},
      {.name = "luks1_over_raw", .container = "raw", .luks_layer = 1},
      {.name = "luks2_over_raw", .container = "raw", .luks_layer = 2},
      {.name = "luks1_over_qcow2", .luks_layer = 1},
      {.name = "detached_luks1_over_raw",
       .container = "raw",
       .luks_layer = 1,
       .detached = true},
      {.name = "detached_luks1_over_qcow2", .luks_layer = 1, .detached = true},
      {.name = "detached_luks2_over_qcow2", .luks_layer = 2, .detached = true},
  };
}

StackKind FindStackKind(const std::string& name) {
  for (const StackKind& kind : AllStackKinds()) {
    if (kind.name == name) return kind;
  }
  throw std::runtime_error("no kind of image called " + name);
}

void PrintTo(const StackKind& kind, std::ostream* out) { *out << kind.name; }

uint64_t WritableStack::DefaultSize(const StackKind& kind) {
  if (kind.luks_layer == 2) return (8 << 20) + 4096;
  return (kind.cluster_size == 512 ? 3 << 20 : 8 << 20) + 1536;
}

WritableStack::WritableStack(const StackKind& kind, uint64_t size)
    : kind_(kind) {
  WriteHostFile(images_.path("key"), kPassphrase);
  if (kind_.luks_layer != 0) {
    MakeLuksLayer(size);
  } else if (kind_.container == "raw") {
    WriteHostFile(image(), Noise(size, 1));
  } else {
    MakeQcow2(size);
  }
}

void WritableStack::MakeQcow2(uint64_t size) {
  QemuImage top = {.name = kTop,
                   .encryption = kind_.encryption,
                   .cluster_size = kind_.cluster_size,
                   .virtual_size = size,
                   .version2 = kind_.version2,
                   .extended_l2 = kind_.extended_l2,
                   .more_options = {},
                   .backing = ""};
  if (kind_.lazy_refcounts) top.more_options.push_back("lazy_refcounts=on");
  if (kind_.data_file) {
    top.more_options.push_back("data_file=" + images_.path("data").native());
  }
  if (!kind_.backing_encryption.empty()) {
    QemuImage base = top;
    base.name = "base.qcow2";
    base.encryption = kind_.backing_encryption;
    base.extended_l2 = false;
    base.virtual_size = size - 700416;
    images_.Create(base);
    images_.Write(base.name, ScatteredWrites(images_, base.virtual_size,
                                             base.cluster_size, 60, 11));
    top.backing = base.name;
  }
  images_.Create(top);
  const uint64_t cluster = kind_.cluster_size;
  if (kind_.compressed) {
    std::vector<std::string> commands;
    for (uint64_t i = 0; (i * 3 + 1) * cluster <= size; ++i) {
      commands.push_back(fmt::format("write -q -c -P {} {} {}", i % 250 + 1,
                                     (i * 3) * cluster, cluster));
    }
    images_.Write(kTop, commands);
  }
  images_.Write(kTop, ScatteredWrites(images_, size, cluster, 30, 12));
  if (kind_.snapshots) {
    TakeSnapshot(images_, kTop, "before");
    images_.Write(kTop, ScatteredWrites(images_, size, cluster, 10, 13));
  }
}

void WritableStack::MakeLuksLayer(uint64_t size) {
  const uint64_t header_bytes = kind_.detached          ? 0
                                : kind_.luks_layer == 1 ? kLuks1HeaderBytes
                                                        : kLuks2HeaderBytes;
  const fs::path raw = images_.path("volume");
  WriteHostFile(raw, Bytes(header_bytes));
  fs::resize_file(raw, header_bytes + size);
  std::vector<std::string> command = {"cryptsetup",
                                      "luksFormat",
                                      "-q",
                                      "--type",
                                      fmt::format("luks{}", kind_.luks_layer),
                                      "--pbkdf-force-iterations",
                                      "1000",
                                      "--cipher",
                                      "aes-xts-plain64",
                                      "--key-size",
                                      "512",
                                      "--key-file",
                                      images_.path("key")};
  if (kind_.luks_layer == 2) {
    command = Joined(command, {"--pbkdf", "pbkdf2", "--sector-size", "4096"});
  }
  if (kind_.detached) {
    command = Joined(command, {"--header", images_.path("header")});
  }
  command.push_back(raw);
  RunTool(command);
  if (kind_.container == "raw") {
    fs::rename(raw, image());
    return;
  }
  RunTool({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image()});
  fs::remove(raw);
}

std::vector<std::string> WritableStack::OpenArguments() const {
  std::vector<std::string> arguments;
  if (kind_.luks_layer != 0) {
    arguments = {"--key-file", images_.path("key")};
    if (kind_.detached) {
      arguments = Joined(arguments, {"--header", images_.path("header")});
    }
  } else if (kind_.container == "qcow2") {
    for (const fs::path& key : images_.KeyFiles(kTop)) {
      arguments = Joined(arguments, {"--key-file", key});
    }
  }
  arguments.push_back(image());
  return arguments;
}

std::vector<std::string> WritableStack::MountArguments() const {
  return Joined({"mount", "-o", "rw", "--cache", kind_.cache}, OpenArguments());
}

fs::path WritableStack::image() const {
  return images_.path(kind_.container == "qcow2" ? kTop : "top.raw");
}

std::vector<fs::path> WritableStack::files() const {
  std::vector<fs::path> files = {image()};
  for (const char* name : {"header", "data", "base.qcow2"}) {
    if (fs::exists(images_.path(name))) files.push_back(images_.path(name));
  }
  return files;
}

std::string WritableStack::QemuLuksOptions(const fs::path& volume) const {
  return fmt::format("driver=luks,key-secret=s,file.filename={}",
                     volume.native());
}

std::vector<std::string> WritableStack::QemuArguments() const {
  if (kind_.luks_layer != 0) {
    return {"--object", "secret,id=s,file=" + images_.path("key").native(),
            "--image-opts",
            kind_.container == "raw"
                ? QemuLuksOptions(image())
                : fmt::format("driver=luks,key-secret=s,file.driver=qcow2,"
                              "file.file.filename={}",
                              image().native())};
  }
  if (kind_.container == "qcow2") return images_.OpenArguments(kTop);
  return {"--image-opts", "driver=raw,file.filename=" + image().native()};
}

bool WritableStack::QemuWrites() const {
  return kind_.luks_layer != 2 && !kind_.detached;
}

void WritableStack::WriteByQemu(const std::string& command) {
  const std::string output =
      RunTool(Joined({"qemu-io", "-c", command}, QemuArguments()));
  if (output.find("failed") != std::string::npos) {
    throw std::runtime_error(output);
  }
}

// Of a LUKS layer, with the header if that is not detached.
Bytes WritableStack::Ciphertext() const {
  if (kind_.container == "raw") return ReadHostFile(image());
  const fs::path raw = images_.path("ciphertext");
  RunTool({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", image(), raw});
  Bytes ciphertext = ReadHostFile(raw);
  fs::remove(raw);
  return ciphertext;
}

fs::path WritableStack::PlaintextByOthers() const {
  const fs::path plain = images_.path("plain-by-others");
  if (QemuWrites()) {
    RunTool(
        Joined(Joined({"qemu-img", "convert", "-O", "raw"}, QemuArguments()),
               {plain}));
    return plain;
  }
  Bytes volume = Ciphertext();
  uint64_t payload_offset = kLuks2HeaderBytes;
  if (kind_.detached) {
    // An ordinary volume of the two parts. The number of the payload's first
    // sector is in a LUKS1 header's byte 104.
    payload_offset = kLuks2HeaderBytes;
    Bytes header = ReadHostFile(images_.path("header"));
    header.resize(payload_offset);
    if (kind_.luks_layer == 1) {
      StoreNumber(header, 104, 4, payload_offset / 512);
    }
    header.insert(header.end(), volume.begin(), volume.end());
    volume.swap(header);
  }
  const fs::path whole = images_.path("whole");
  WriteHostFile(whole, volume);
  if (kind_.luks_layer == 1) {
    RunTool({"qemu-img", "convert", "-O", "raw", "--object",
             "secret,id=s,file=" + images_.path("key").native(), "--image-opts",
             QemuLuksOptions(whole), plain});
    return plain;
  }
  const fs::path volume_key = images_.path("volume-key");
  fs::remove(volume_key);
  RunTool({"cryptsetup", "luksDump", "-q", "--dump-volume-key",
           "--volume-key-file", volume_key, "--key-file", images_.path("key"),
           kind_.detached ? images_.path("header") : image()});
  RunTool({"python3", "-c", kLuks2Reader, whole, volume_key, plain,
           std::to_string(payload_offset)});
  return plain;
}

Bytes WritableStack::ContentByOthers() const {
  return ReadHostFile(PlaintextByOthers());
}

Bytes WritableStack::SnapshotByOthers() const {
  const fs::path plain = images_.path("snapshot-by-others");
  RunTool(Joined(
      Joined({"qemu-img", "convert", "-O", "raw", "-l", "snapshot.name=before"},
             QemuArguments()),
      {plain}));
  return ReadHostFile(plain);
}

std::string WritableStack::Damage(bool allow_leaks) const {
  if (kind_.container != "qcow2") return "";
  const ProgramResult result = RunProgram(
      Joined({"qemu-img", "check"},
             kind_.luks_layer == 0
                 ? images_.OpenArguments(kTop)
                 : std::vector<std::string>{"-f", "qcow2", image().native()}));
  constexpr int kOnlyLeaks = 3;
  if (result.exit_code == 0) return "";
  if (allow_leaks && result.exit_code == kOnlyLeaks) return "";
  return fmt::format("exit code {}: {}{}", result.exit_code, result.out,
                     result.err);
}

}  // namespace pellucid::fuse
