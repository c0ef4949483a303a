#ifndef PELLUCID_TOOLS_COMMAND_SANDBOX_H_
#define PELLUCID_TOOLS_COMMAND_SANDBOX_H_

#include <boost/program_options/options_description.hpp>
#include <cstdint>
#include <filesystem>
#include <map>

#include "engine/open_image.h"

namespace pellucid::cli {

// The sandbox of the subcommands that read images and end (docs/sandbox.md),
// and the option that leaves it out. Not synchronised.
class CommandSandbox {
 public:
  CommandSandbox() = default;
  CommandSandbox(const CommandSandbox&) = delete;
  CommandSandbox& operator=(const CommandSandbox&) = delete;

  // Adds --no-sandbox to `options`, which keeps a pointer into this object.
  void AddTo(boost::program_options::options_description& options);

  // What the subcommand writes; nothing else can be, once it has entered.
  //
  // A file or device that is there, in its place.
  void MayWrite(const std::filesystem::path& file);
  // A new file, or what takes the place of the present one. Does nothing for an
  // empty name.
  void MayMake(const std::filesystem::path& file);
  // The image of `options`, its header and its data file, whatever that is.
  void MayWriteImage(const OpenOptions& options);

  // A child that runs already, over sockets that are open; and waiting for its
  // end.
  void MayTalkToChild() { talks_to_child_ = true; }

  // Gives up for the rest of the process: at once, all system calls but those
  // of a list (any other ends the process with SIGSYS), and capabilities that
  // have nothing to do with files; when the first image or header is open and
  // none of it has been read, the right to write to, make and remove any other
  // files, where the kernel has Landlock. Call after parsing, as the only
  // thread. Throws Error if the kernel refuses. Does nothing if --no-sandbox
  // was given, and in builds with sanitizers.
  void Enter() const;

 private:
  bool unwanted_ = false;
  bool makes_files_ = false;
  bool talks_to_child_ = false;
  std::map<std::filesystem::path, uint64_t> kept_;  // Rights of FileFence.
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_COMMAND_SANDBOX_H_
