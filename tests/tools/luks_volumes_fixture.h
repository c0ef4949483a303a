#ifndef PELLUCID_TESTS_TOOLS_LUKS_VOLUMES_FIXTURE_H_
#define PELLUCID_TESTS_TOOLS_LUKS_VOLUMES_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {

// Runs a qemu-img that makes a keyslot and throws if it fails, but not because
// the machine is busy: it measures its own speed before that, and gives up if
// its clock has not ticked meanwhile.
void RunQemuImg(std::vector<std::string> command);

// Where a LUKS header can be changed.
enum class Container {
  kRawLuks1,
  kRawLuks2,
  kDetachedLuks1,
  kDetachedLuks2,
  kQcow2,
};

void PrintTo(Container container, std::ostream* out);
std::string ContainerName(Container container);
unsigned LuksVersionOf(Container container);

// A volume that QEMU or cryptsetup has made, with the passphrase "old", and the
// programs that open it. Every one that is missing fails the test.
class LuksVolumes {
 public:
  static constexpr uint64_t kPayloadBytes = uint64_t{1} << 20;

  // Makes the container's files. The plaintext is noise.
  void Make(Container container);

  // What `pellucid SUBCOMMAND` must be told: IMAGE, and --header if need be.
  std::vector<std::string> Operands() const;
  // The file that the header is in.
  std::filesystem::path HeaderFile() const;

  // Runs pellucid with the words of `command`, then the operands.
  ProgramResult Pellucid(std::vector<std::string> command) const;
  // The same, which must succeed; gives its standard output.
  std::string MustRun(const std::vector<std::string>& command) const;

  // A file that holds the passphrase.
  std::string KeyFile(const std::string& passphrase) const;
  // The options for pellucid that make a keyslot cheap.
  std::vector<std::string> Cheap() const;

  // Does the passphrase open the volume, by `pellucid export`, and by
  // cryptsetup and QEMU as far as they know the container? Fails the test if
  // they disagree or the plaintext is not what it was.
  bool Opens(const std::string& passphrase) const;

  // Adds a passphrase by cryptsetup or by qemu-img amend.
  void AddByOthers(const std::string& existing,
                   const std::string& passphrase) const;

  const ScratchFolder& folder() const { return folder_; }

 private:
  void MakeByQemu() const;
  void MakeByCryptsetup() const;
  bool OthersOpen(const std::string& passphrase) const;
  bool QemuOpens(const std::string& passphrase) const;
  std::string QemuImage(const std::string& secret) const;

  Container container_ = Container::kRawLuks1;
  std::string plaintext_hash_;
  ScratchFolder folder_;
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_TOOLS_LUKS_VOLUMES_FIXTURE_H_
