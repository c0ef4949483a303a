#include "tools/import_command.h"

#include <fmt/core.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/program_options/options_description.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/file_device.h"
#include "engine/open_image.h"
#include "engine/printable.h"
#include "tools/command_line.h"
#include "tools/command_sandbox.h"
#include "tools/copy_arguments.h"
#include "tools/copy_target.h"
#include "tools/import_source.h"
#include "tools/interrupt_watch.h"
#include "tools/open_arguments.h"
#include "tools/ordered_hashes.h"
#include "tools/plaintext_copy.h"
#include "tools/progress_bar.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid import [OPTION]... PLAIN|- IMAGE",
    .description =
        "Copies the file or block device PLAIN, or standard input (-), into\n"
        "IMAGE, which must be there and large enough, and encrypts it. What "
        "is\n"
        "a hole or a longer run of zeros in PLAIN takes no space in IMAGE "
        "where\n"
        "its format allows that. The rest of a larger IMAGE stays as it is.",
    .operands = {"PLAIN", "IMAGE"},
    .common_options = {"offset", "hash", "key-file", "header"},
};

struct ImportArguments {
  CommandSandbox sandbox;
  OpenArguments open;
  CopyArguments copy;

  void AddTo(po::options_description& options);
};

void ImportArguments::AddTo(po::options_description& options) {
  copy.AddTo(options, "put it at byte N of the image; suffixes K, M, G, T",
             "print hashes of the copied bytes (md5, sha1, sha256, blake2b, "
             "...) on standard output",
             "store zeros in the image like other bytes");
  open.AddPartitionTo(options);
  open.AddTo(options);
  sandbox.AddTo(options);
}

// The plaintext of an image that is written.
class ImportTarget : public CopyTarget {
 public:
  // Borrows `image`.
  ImportTarget(WritableDevice& image, bool sparse)
      : image_(image), sparse_(sparse) {}

  bool is_stream() const override { return false; }
  ZeroHandling zeros() const override {
    return sparse_ ? ZeroHandling::kMark : ZeroHandling::kStore;
  }
  void Write(uint64_t offset, std::span<const std::byte> data) override {
    image_.Write(offset, data);
  }
  void WriteZeros(uint64_t offset, uint64_t length) override {
    image_.WriteZeroes(offset, length,
                       sparse_ ? ZeroMode::kFreeSpace : ZeroMode::kKeepSpace);
  }

 private:
  WritableDevice& image_;
  const bool sparse_;
};

std::vector<HostFileId> FilesAt(const std::filesystem::path& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return {};  // Opening it will tell.
  return {HostFileId::Of(status)};
}

void SayIsPartial(const std::filesystem::path& image) {
  fmt::print(stderr, "pellucid: {}: holds only a part of the import now\n",
             Printable(image.native()));
}

// The bytes of the image that an import at `offset` may use. Throws UsageError.
uint64_t RoomAt(uint64_t offset, const OpenedImage& image) {
  const uint64_t size = image.device->size();
  if (offset <= size) return size - offset;
  throw UsageError(
      fmt::format("--offset {} is behind the end of the image, which has {} "
                  "bytes",
                  offset, size));
}

void CheckFits(const FileDevice& plain, uint64_t offset, uint64_t room) {
  if (plain.size() <= room) return;
  throw UsageError(fmt::format(
      "{}: has {} bytes, but the image has only {}{}; make a larger image",
      plain.file().native(), plain.size(), room,
      offset == 0 ? "" : fmt::format(" from byte {} on", offset)));
}

// Copies `plain`, or standard input if it is null, and makes it durable.
// Returns how many bytes that was.
uint64_t Copy(FileDevice* plain, OpenedImage& image,
              const ImportArguments& arguments, uint64_t room,
              OrderedHashes* hashes) {
  const uint64_t offset = arguments.copy.Offset();
  ImportTarget target(*image.writable, arguments.copy.sparse());
  uint64_t copied = 0;
  if (plain == nullptr) {
    copied = CopyStandardInput(target, offset, room, hashes,
                               [](uint64_t) { InterruptWatch::Check(); });
  } else {
    copied = plain->size();
    ProgressBar bar(plain->size(), arguments.copy.quiet());
    PlaintextCopy copy(*plain, {.offset = 0, .length = plain->size()}, target,
                       offset, {.hashes = hashes, .manifest = nullptr});
    copy.Run(arguments.copy.Threads(), [&](Progress progress) {
      InterruptWatch::Check();
      bar.Show(progress);
    });
  }
  InterruptWatch::Check();
  image.writable->Flush();
  return copied;
}

}  // namespace

int RunImportCommand(const std::vector<std::string>& words) {
  ImportArguments arguments;
  po::options_description options;
  arguments.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return 0;
  const std::string& path = (*operands)[0];
  const bool is_stream = path == kStandardInput;

  OpenOptions open_options = arguments.open.ToOpenOptions();
  open_options.image = (*operands)[1];
  open_options.writable = true;
  arguments.open.forensic().RefuseWriting("an import");
  if (arguments.open.read_only()) {
    throw UsageError("an import writes; it cannot be --read-only");
  }
  if (is_stream && arguments.open.reads_standard_input()) {
    throw UsageError(
        "standard input cannot be the data and a key file at the same time");
  }
  arguments.copy.Threads();
  const std::vector<std::string> hash_names = arguments.copy.HashNames();
  const uint64_t offset = arguments.copy.Offset();
  // Before anybody has to type a passphrase.
  CheckImportSource(path, FilesAt(open_options.image));

  arguments.sandbox.MayWriteImage(open_options);
  arguments.sandbox.Enter();
  OpenedImage image = OpenAndWarn(
      open_options, *arguments.open.MakePassphraseSource(open_options));
  CheckImportSource(path, image.files);
  const uint64_t room = RoomAt(offset, image);
  std::unique_ptr<FileDevice> plain;
  if (!is_stream) {
    plain = FileDevice::Open(path, FileDevice::Sharing::kExclusive);
    CheckFits(*plain, offset, room);
  }
  std::optional<OrderedHashes> hashes;
  if (!hash_names.empty()) hashes.emplace(hash_names);
  uint64_t copied = 0;
  int interrupted_by = 0;
  try {
    const InterruptWatch interrupts;
    copied =
        Copy(plain.get(), image, arguments, room, hashes ? &*hashes : nullptr);
  } catch (const Interrupted& interrupted) {
    interrupted_by = interrupted.signal;
  } catch (...) {
    SayIsPartial(open_options.image);
    throw;
  }
  if (interrupted_by != 0) {
    SayIsPartial(open_options.image);
    kill(getpid(), interrupted_by);
    return static_cast<int>(ExitCode::kFailure);
  }
  if (hashes) {
    arguments.copy.PrintHashes(hashes->Finish(), path,
                               {.offset = 0, .length = copied}, stdout);
  }
  return 0;
}

}  // namespace pellucid::cli
