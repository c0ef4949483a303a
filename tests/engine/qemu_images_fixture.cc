#include "tests/engine/qemu_images_fixture.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <span>
#include <stdexcept>

#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;

std::string Passphrase(const std::string& name) { return "key of " + name; }

// qemu-io reports a failed command in its output, not by its exit code.
bool ReportsFailure(const std::string& output) {
  return output.find("failed") != std::string::npos ||
         output.find("error") != std::string::npos ||
         output.find("not found") != std::string::npos ||
         output.find("must be") != std::string::npos;
}

// Makes an `image` that stands alone. QEMU measures the machine for seconds, so
// the empty image is kept for all later tests of this build folder that ask for
// what `description` says.
void RunOnce(const std::vector<std::string>& command, const fs::path& image,
             const std::string& description) {
  const fs::path kept =
      fs::path(PELLUCID_TEST_SCRATCH) / "empty-images" /
      Sha256(std::as_bytes(std::span(description))).substr(0, 24);
  if (fs::exists(kept)) {
    fs::copy_file(kept, image);
    return;
  }
  RunTool(command);
  // Other processes may be at the same.
  fs::create_directories(kept.parent_path());
  const fs::path own = fmt::format("{}.{}", kept.native(), getpid());
  fs::copy_file(image, own);
  fs::rename(own, kept);
}

}  // namespace

QemuImages::QemuImages() {
  for (unsigned i = 0; i < kSources; ++i) {
    WriteHostFile(source(i), Noise(4099 + 30011 * i, i));
  }
}

std::string QemuImages::source(unsigned i) const {
  return folder_ / fmt::format("source{}", i);
}

const QemuImage& QemuImages::Find(const std::string& name) const {
  const auto found = std::ranges::find(images_, name, &QemuImage::name);
  if (found == images_.end()) throw std::runtime_error("no image " + name);
  return *found;
}

fs::path QemuImages::KeyFile(const std::string& name) const {
  return folder_ / (name + ".key");
}

void QemuImages::Create(const QemuImage& image) {
  images_.push_back(image);
  WriteHostFile(KeyFile(image.name), Passphrase(image.name));
  std::vector<std::string> options = image.more_options;
  options.push_back(fmt::format("cluster_size={}", image.cluster_size));
  options.push_back(image.version2 ? "compat=0.10" : "compat=1.1");
  if (image.extended_l2) options.push_back("extended_l2=on");
  std::vector<std::string> command = {"qemu-img", "create", "-q", "-f",
                                      "qcow2"};
  if (image.encryption != "none") {
    command.insert(
        command.end(),
        {"--object", "secret,id=s,file=" + KeyFile(image.name).string()});
    options.push_back("encrypt.format=" + image.encryption);
    options.push_back("encrypt.key-secret=s");
  }
  if (image.encryption == "luks") options.push_back("encrypt.iter-time=10");
  const std::string all_options = fmt::format("{}", fmt::join(options, ","));
  command.insert(command.end(), {"-o", all_options});
  // -u: QEMU need not open the backing image, which would want its key.
  if (!image.backing.empty()) {
    command.insert(command.end(), {"-u", "-F", "qcow2", "-b", image.backing});
  }
  command.push_back(path(image.name));
  command.push_back(std::to_string(image.virtual_size));
  if (image.encryption != "luks") {
    RunTool(command);
  } else if (all_options.find("data_file=") != std::string::npos) {
    RunTool(command);
  } else {
    RunOnce(command, path(image.name),
            fmt::format("{}|{}|{}|{}", image.name, image.backing,
                        image.virtual_size, all_options));
  }
}

std::vector<std::string> QemuImages::OpenArguments(
    const std::string& name) const {
  std::vector<std::string> arguments;
  std::string image_options = fmt::format(
      "driver=qcow2,discard=unmap,file.filename={}", path(name).native());
  std::string prefix;
  for (const QemuImage* layer = &Find(name);; layer = &Find(layer->backing)) {
    if (layer->encryption != "none") {
      const std::string secret = fmt::format("s{}", arguments.size());
      arguments.push_back("--object");
      arguments.push_back(fmt::format("secret,id={},file={}", secret,
                                      KeyFile(layer->name).native()));
      image_options +=
          fmt::format(",{0}encrypt.format={1},{0}encrypt.key-secret={2}",
                      prefix, layer->encryption, secret);
    }
    if (layer->backing.empty()) break;
    prefix += "backing.";
  }
  arguments.push_back("--image-opts");
  arguments.push_back(image_options);
  return arguments;
}

void QemuImages::Write(const std::string& name,
                       const std::vector<std::string>& commands) {
  std::vector<std::string> command = {"qemu-io"};
  const std::vector<std::string> open = OpenArguments(name);
  command.insert(command.end(), open.begin(), open.end());
  const std::string output =
      RunTool(command, fmt::format("{}\n", fmt::join(commands, "\n")));
  if (ReportsFailure(output)) throw std::runtime_error(output);
}

Bytes QemuImages::Content(const std::string& name) const {
  const fs::path copy = folder_ / (name + ".raw");
  std::vector<std::string> command = {"qemu-img", "convert", "-O", "raw"};
  const std::vector<std::string> open = OpenArguments(name);
  command.insert(command.end(), open.begin(), open.end());
  command.push_back(copy);
  RunTool(command);
  Bytes content = ReadHostFile(copy);
  fs::remove(copy);
  return content;
}

OpenOptions QemuImages::options(const std::string& name) const {
  OpenOptions options;
  options.image = path(name);
  return options;
}

KnownPassphrases QemuImages::passphrases() const {
  KnownPassphrases passphrases;
  for (const QemuImage& image : images_) {
    passphrases.Add(image.name, Passphrase(image.name));
  }
  return passphrases;
}

std::unique_ptr<BlockDevice> QemuImages::Open(const std::string& name) const {
  KnownPassphrases known = passphrases();
  return OpenImage(options(name), known).device;
}

std::vector<fs::path> QemuImages::KeyFiles(const std::string& name) const {
  std::vector<fs::path> files;
  for (const QemuImage* layer = &Find(name);; layer = &Find(layer->backing)) {
    if (layer->encryption != "none") files.push_back(KeyFile(layer->name));
    if (layer->backing.empty()) return files;
  }
}

std::vector<std::string> ScatteredWrites(const QemuImages& images,
                                         uint64_t size, uint64_t cluster_size,
                                         int count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::string> commands;
  const auto add = [&](const std::string& operation, uint64_t offset,
                       uint64_t length) {
    offset = std::min(offset, size - 1);
    commands.push_back(fmt::format("{} {} {}", operation, offset,
                                   std::min(length, size - offset)));
  };
  const auto write = [&] {
    return "write -q -s " + images.source(static_cast<unsigned>(
                                random() % QemuImages::kSources));
  };
  // The edges of the disk.
  add(write(), 0, 700);
  add(write(), size - 300, 300);
  for (int i = 0; i < count; ++i) {
    const uint64_t offset = random() % size;
    const uint64_t edge = offset - offset % cluster_size;
    switch (random() % 8) {
      case 0:  // Within sectors.
        add(write(), offset, 1 + random() % 1500);
        break;
      case 1:  // Over the edge of a cluster.
        add(write(), edge - std::min(edge, random() % 1000), 2000);
        break;
      case 2:  // Whole clusters.
        add(write(), edge, std::min<uint64_t>(cluster_size, 128 << 10));
        break;
      case 3:  // Many small clusters.
        add(write(), offset, random() % (100 << 10) + 1);
        break;
      case 4:
        add("write -q -z", offset, 1 + random() % (2 * cluster_size));
        break;
      case 5:
        add("write -q -z -u", edge, cluster_size);
        break;
      case 6:
        add("discard -q", edge, cluster_size * (1 + random() % 2));
        break;
      default:
        add(fmt::format("write -q -P {}", random() % 256), offset,
            1 + random() % 5000);
    }
  }
  return commands;
}

std::vector<ImageVariant> AllVariants() {
  std::vector<ImageVariant> variants;
  for (const uint64_t cluster_size : {512U, 4U << 10, 64U << 10, 2U << 20}) {
    for (const char* version : {"v2", "v3", "extended"}) {
      // Subclusters have 512 bytes at least.
      if (version == std::string("extended") && cluster_size < 16384) continue;
      for (const char* encryption : {"none", "aes", "luks"}) {
        for (const bool has_backing : {false, true}) {
          variants.push_back({cluster_size, version, encryption, has_backing});
        }
      }
    }
  }
  return variants;
}

std::string TestName(const ImageVariant& variant) {
  return fmt::format("{}_{}_{}{}", variant.version, variant.cluster_size,
                     variant.encryption,
                     variant.has_backing ? "_over_backing" : "");
}

void PrintTo(const ImageVariant& variant, std::ostream* out) {
  *out << TestName(variant);
}

void MakeVariant(const ImageVariant& variant, QemuImages& images) {
  // The same for the same variant, and different for every other.
  const std::string name = TestName(variant);
  const uint64_t seed = std::stoull(
      Sha256(std::as_bytes(std::span(name))).substr(0, 15), nullptr, 16);
  // Some L2 tables where clusters are small, a few clusters where they are
  // large, and an end inside a cluster.
  const auto size_for = [](uint64_t cluster_size) -> uint64_t {
    return cluster_size < 4096 ? (1 << 20) + 512 : (7 << 20) + 1536;
  };
  QemuImage top = {.name = "top.qcow2",
                   .encryption = variant.encryption,
                   .cluster_size = variant.cluster_size,
                   .virtual_size = size_for(variant.cluster_size),
                   .version2 = variant.version == "v2",
                   .extended_l2 = variant.version == "extended",
                   .more_options = {},
                   .backing = ""};
  if (variant.has_backing) {
    QemuImage base = top;
    base.name = "base.qcow2";
    base.cluster_size = variant.cluster_size == 512    ? 65536
                        : variant.cluster_size == 4096 ? 512
                                                       : 4096;
    base.extended_l2 = base.cluster_size >= 16384;
    base.version2 = !base.extended_l2 && seed % 2 == 0;
    base.encryption = variant.encryption == "none"  ? "luks"
                      : variant.encryption == "aes" ? "none"
                                                    : "aes";
    base.virtual_size =
        seed % 3 == 0 ? top.virtual_size + 700416 : top.virtual_size - 700416;
    images.Create(base);
    images.Write(base.name, ScatteredWrites(images, base.virtual_size,
                                            base.cluster_size, 40, seed + 1));
    top.backing = base.name;
  }
  images.Create(top);
  images.Write(top.name, ScatteredWrites(images, top.virtual_size,
                                         top.cluster_size, 40, seed));
}

}  // namespace pellucid
