#include "tools/mount_command.h"

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "engine/cluster_cache.h"
#include "engine/errors.h"
#include "engine/open_image.h"
#include "fuse/background.h"
#include "fuse/mount_attendant.h"
#include "fuse/mount_options.h"
#include "fuse/mount_session.h"
#include "fuse/mounted_device.h"
#include "fuse/mountpoint.h"
#include "fuse/sandbox.h"
#include "tools/cache_arguments.h"
#include "tools/command_line.h"
#include "tools/duration.h"
#include "tools/forensic_run.h"
#include "tools/mount_access.h"
#include "tools/mount_helper.h"
#include "tools/open_arguments.h"
#include "tools/overlay.h"

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {
    .synopsis = "pellucid mount [OPTION]... IMAGE MOUNTPOINT",
    .description =
        "Shows the plaintext of IMAGE, for reading and, if the image can be\n"
        "written, for writing. If MOUNTPOINT is a regular file the plaintext\n"
        "takes its place; in a directory it is the file `disk`, with the "
        "image's\n"
        "snapshots beside it and, if it is mounted read-only, its partitions. "
        "Returns\n"
        "when it is there; `pellucid umount` ends it.\n"
        "\n"
        "Mount options: ro (as --read-only), rw (fail unless the image can be\n"
        "written), allow_other, allow_root, uid=N, gid=N, umask=OCTAL,\n"
        "fsname=NAME, max_read=BYTES, auto_unmount, and flags of mount(8) as\n"
        "pellucid-mount(1) lists them.",
    .operands = {"IMAGE", "MOUNTPOINT"},
    .common_options = {"read-only", "key-file", "header", "options",
                       "foreground"},
};

void AddOverlayTo(po::options_description& options, std::string* overlay) {
  options.add_options()  //
      ("overlay", po::value(overlay)->value_name("FILE"),
       "leave IMAGE as it is: what is written goes to FILE, a qcow2 image over "
       "it, encrypted too; it is made, or was by such a mount");
}

// The options that may also stand in fstab.
struct MountArguments {
  OpenArguments open;
  CacheArguments cache;
  std::string overlay;
  std::string idle_timeout;
  bool no_sandbox = false;

  // Adds the options to `options`, which keeps pointers into this object.
  void AddTo(po::options_description& options) {
    open.AddPartitionTo(options);
    open.AddTo(options);
    AddOverlayTo(options, &overlay);
    cache.AddTo(options);
    options.add_options()  //
        ("idle-timeout", po::value(&idle_timeout)->value_name("TIME"),
         "unmount when nobody has used the mount for TIME: 90 or 90s "
         "(seconds), "
         "15m, 2h, 1d")  //
        ("no-sandbox", po::bool_switch(&no_sandbox),
         "let the serving process keep all of its rights, for debugging");
  }
};

// Says where the image is, whatever folder the reader of the mount table is in.
std::string SourceName(const std::filesystem::path& image) {
  return std::filesystem::absolute(image).lexically_normal().string();
}

std::vector<std::filesystem::path> NamedFiles(const OpenOptions& options,
                                              const std::string& overlay) {
  std::vector<std::filesystem::path> files = {options.image};
  if (!options.header.empty()) files.push_back(options.header);
  if (!options.data_file.empty()) files.push_back(options.data_file);
  if (!overlay.empty()) files.push_back(overlay);
  return files;
}

// Takes the device of `image` and puts the cache in front of it if there is to
// be one.
fuse::MountedDevice MakeMountedDevice(OpenedImage& image,
                                      const CacheOptions& cache) {
  if (image.writable == nullptr || cache.mode == CacheMode::kNone) {
    fuse::MountedDevice mounted(std::move(image.device), image.writable);
    mounted.snapshots = std::move(image.snapshots);
    return mounted;
  }
  static_cast<void>(
      image.device.release());  // The same object, as a writable one.
  auto cached = std::make_unique<ClusterCache>(
      std::unique_ptr<WritableDevice>(image.writable),
      ClusterCache::Options{.mode = cache.mode == CacheMode::kWritethrough
                                        ? ClusterCache::Mode::kWritethrough
                                        : ClusterCache::Mode::kWriteback,
                            .capacity_bytes = cache.bytes,
                            .starts_later = true});
  ClusterCache* const device = cached.get();
  fuse::MountedDevice mounted(std::move(cached), device);
  mounted.snapshots = std::move(image.snapshots);
  mounted.report_deferred_error = [device] { device->ReportDeferredError(); };
  mounted.start = [device] { device->Start(); };
  return mounted;
}

// `access` is what the image by itself would be mounted with.
WantedAccess OverlayAccess(const OpenArguments& arguments,
                           WantedAccess access) {
  arguments.forensic().RefuseWriting("a mount with --overlay");
  if (access == WantedAccess::kReadOnly) {
    throw UsageError(
        "--overlay is for writing; to read only, mount the overlay itself as "
        "IMAGE");
  }
  return WantedAccess::kReadWrite;
}

}  // namespace

int RunMountCommand(const std::vector<std::string>& words) {
  MountArguments arguments;
  bool foreground = false;
  std::vector<std::string> mount_option_lists;
  po::options_description options;
  options.add_options()  //
      ("options,o", po::value(&mount_option_lists)->value_name("OPTION,..."),
       "mount options; may be repeated")  //
      ("foreground,f", po::bool_switch(&foreground),
       "do not return before the unmount; messages go to standard error");
  arguments.AddTo(options);
  const auto operands = ParseCommandLine(kSyntax, options, words);
  if (!operands) return 0;

  OpenOptions open_options = arguments.open.ToOpenOptions();
  open_options.image = (*operands)[0];
  fuse::MountOptions mount_options =
      fuse::ParseMountOptions(mount_option_lists);
  WantedAccess access = DecideAccess(open_options, arguments.open.read_only(),
                                     mount_options.access);
  if (!arguments.overlay.empty()) {
    CheckOverlayOptions(open_options, arguments.overlay);
    access = OverlayAccess(arguments.open, access);
  }
  const CacheOptions cache = arguments.cache.ToCacheOptions();
  mount_options.kernel_writeback = cache.mode == CacheMode::kWriteback;
  mount_options.image_may_change = open_options.force_share;
  if (!arguments.idle_timeout.empty()) {
    mount_options.idle_timeout =
        ParseDuration("idle-timeout", arguments.idle_timeout);
  }
  if (mount_options.fsname.empty()) {
    mount_options.fsname = SourceName(open_options.image);
  }
  const ForensicArguments& forensic = arguments.open.forensic();
  forensic.Check();
  if (forensic.evidence_hash() && forensic.log().empty() && !foreground) {
    throw UsageError(
        "--evidence-hash needs --log or --foreground: a mount in the "
        "background has nobody to tell at its end");
  }
  // At the end the files of --forensic are looked at again, by their names.
  if (forensic.wanted()) {
    mount_options.sandbox = fuse::SandboxLeaves::kLookingAtNames;
  }
  if (arguments.no_sandbox) mount_options.sandbox.reset();
  auto passphrases = arguments.open.MakePassphraseSource(open_options);
  // Before the passphrase is asked for: it would have been typed in vain.
  const fuse::Mountpoint mountpoint = fuse::CheckMountpoint(
      (*operands)[1], NamedFiles(open_options, arguments.overlay));

  const auto serve = [&](const std::function<void()>& on_ready) {
    // A child of this process, forked before there is anything to keep secret.
    fuse::MountAttendant attendant(mountpoint);
    OpenedImage image =
        OpenWithAccess(arguments.overlay.empty()
                           ? open_options
                           : OpenOptionsOfOverlay(
                                 open_options, arguments.overlay, *passphrases),
                       access, *passphrases, Warn);
    WarnAbout(image);
    fuse::CheckIsNoImageFile(mountpoint, image.files);
    passphrases.reset();  // Wiped: nothing asks again while the mount is up.
    fuse::MountSession session(MakeMountedDevice(image, cache),
                               image.image_stat, mountpoint, mount_options,
                               foreground ? fuse::LogTarget::kStandardError
                                          : fuse::LogTarget::kSystemLog,
                               attendant);
    session.Run(on_ready);
    return 0;
  };
  const auto serve_forensically = [&](const std::function<void()>& on_ready) {
    return RunForensically(forensic, "mount", words,
                           [&] { return serve(on_ready); });
  };
  return foreground ? serve_forensically([] {})
                    : fuse::RunInBackground(serve_forensically);
}

int RunMountHelper(const std::vector<std::string>& words) {
  MountArguments arguments;
  po::options_description table;
  arguments.AddTo(table);
  const auto translated = WordsOfMountHelper(words, table);
  return translated ? RunMountCommand(*translated) : 0;
}

}  // namespace pellucid::cli
