#include "tests/tools/luks_volumes_fixture.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace pellucid {
namespace {

bool IsDetached(Container container) {
  return container == Container::kDetachedLuks1 ||
         container == Container::kDetachedLuks2;
}

std::string Secret(const std::string& id, const std::string& passphrase) {
  return fmt::format("secret,id={},data={}", id, passphrase);
}

}  // namespace

void RunQemuImg(std::vector<std::string> command) {
  command.insert(command.begin(), "qemu-img");
  RunTool(command);
}

std::string ContainerName(Container container) {
  switch (container) {
    case Container::kRawLuks1:
      return "RawLuks1";
    case Container::kRawLuks2:
      return "RawLuks2";
    case Container::kDetachedLuks1:
      return "DetachedLuks1";
    case Container::kDetachedLuks2:
      return "DetachedLuks2";
    case Container::kQcow2:
      return "Qcow2";
  }
  throw std::logic_error("no such container");
}

void PrintTo(Container container, std::ostream* out) {
  *out << ContainerName(container);
}

unsigned LuksVersionOf(Container container) {
  return container == Container::kRawLuks2 ||
                 container == Container::kDetachedLuks2
             ? 2
             : 1;
}

std::string LuksVolumes::QemuImage(const std::string& secret) const {
  const bool qcow2 = container_ == Container::kQcow2;
  return fmt::format("driver={},{}key-secret={},file.filename={}",
                     qcow2 ? "qcow2" : "luks", qcow2 ? "encrypt." : "", secret,
                     (folder_ / "image").native());
}

void LuksVolumes::Make(Container container) {
  container_ = container;
  if (container == Container::kQcow2 || container == Container::kRawLuks1) {
    MakeByQemu();
  } else {
    MakeByCryptsetup();
  }
  plaintext_hash_ = MustRun({"export", "--key-file", KeyFile("old"), "--hash",
                             "sha256", "--force", "/dev/null"});
}

void LuksVolumes::MakeByQemu() const {
  const bool qcow2 = container_ == Container::kQcow2;
  const std::filesystem::path image = folder_ / "image";
  // The measuring takes seconds: done once for a build folder.
  const std::filesystem::path kept =
      std::filesystem::path(PELLUCID_TEST_SCRATCH) / "luks-volumes" /
      ContainerName(container_);
  if (std::filesystem::exists(kept)) {
    std::filesystem::copy_file(kept, image);
    return;
  }
  const std::string prefix = qcow2 ? "encrypt." : "";
  RunQemuImg({"create", "-f", qcow2 ? "qcow2" : "luks", "--object",
              Secret("s", "old"), "-o",
              fmt::format("{}{}key-secret=s,{}iter-time=10",
                          qcow2 ? "encrypt.format=luks," : "", prefix, prefix),
              image, std::to_string(kPayloadBytes)});
  RunTool({"qemu-io", "--object", Secret("s", "old"), "--image-opts",
           QemuImage("s"), "-c", "write -P 42 0 300k", "-c",
           "write -P 43 700k 100k"});
  // Other processes may be at the same.
  std::filesystem::create_directories(kept.parent_path());
  const std::filesystem::path own =
      fmt::format("{}.{}", kept.native(), getpid());
  std::filesystem::copy_file(image, own);
  std::filesystem::rename(own, kept);
}

void LuksVolumes::MakeByCryptsetup() const {
  const std::string image = folder_ / "image";
  const bool detached = IsDetached(container_);
  const uint64_t header = LuksVersionOf(container_) == 1 ? 2 << 20 : 16 << 20;
  // Ciphertext of nobody: noise behind the header, or all of the payload.
  Bytes content = Noise(kPayloadBytes + (detached ? 0 : header), 1);
  if (!detached) std::fill_n(content.begin(), header, std::byte{0});
  WriteHostFile(image, content);
  if (detached) WriteHostFile(HeaderFile(), Bytes(header));
  std::vector<std::string> format = {
      "cryptsetup",
      "luksFormat",
      "-q",
      "--type",
      fmt::format("luks{}", LuksVersionOf(container_)),
      "--pbkdf",
      "pbkdf2",
      "--pbkdf-force-iterations",
      "1000",
      "--key-file",
      KeyFile("old")};
  if (detached) format.insert(format.end(), {"--header", HeaderFile()});
  format.push_back(image);
  RunTool(format);
}

std::filesystem::path LuksVolumes::HeaderFile() const {
  return folder_ / (IsDetached(container_) ? "header" : "image");
}

std::vector<std::string> LuksVolumes::Operands() const {
  std::vector<std::string> operands;
  if (IsDetached(container_)) operands = {"--header", HeaderFile()};
  operands.push_back(folder_ / "image");
  return operands;
}

ProgramResult LuksVolumes::Pellucid(std::vector<std::string> command) const {
  // FILE comes behind IMAGE, options come anywhere.
  std::vector<std::string> words = {PELLUCID_PROGRAM};
  const bool has_file = command.front() == "export";
  std::string file;
  if (has_file) {
    file = std::move(command.back());
    command.pop_back();
  }
  words.insert(words.end(), command.begin(), command.end());
  for (const std::string& operand : Operands()) words.push_back(operand);
  if (has_file) words.push_back(file);
  return RunProgram(words);
}

std::string LuksVolumes::MustRun(
    const std::vector<std::string>& command) const {
  const ProgramResult result = Pellucid(command);
  if (result.exit_code != 0) {
    throw std::runtime_error(
        fmt::format("exit code {}: {}", result.exit_code, result.err));
  }
  return result.out;
}

std::string LuksVolumes::KeyFile(const std::string& passphrase) const {
  const std::filesystem::path file = folder_ / ("key " + passphrase);
  WriteHostFile(file, passphrase);
  return file;
}

std::vector<std::string> LuksVolumes::Cheap() const {
  return {"--kdf", "pbkdf2", "--pbkdf2-iterations", "1000"};
}

bool LuksVolumes::QemuOpens(const std::string& passphrase) const {
  const ProgramResult result = RunProgram(
      {"qemu-img", "convert", "--object", Secret("s", passphrase),
       "--image-opts", QemuImage("s"), "-O", "raw", folder_ / "plain"});
  EXPECT_NE(result.exit_code, 127) << result.err;
  if (result.exit_code == 0) {
    EXPECT_EQ(Sha256(ReadHostFile(folder_ / "plain")),
              plaintext_hash_.substr(0, 64));
  }
  return result.exit_code == 0;
}

bool LuksVolumes::OthersOpen(const std::string& passphrase) const {
  if (container_ == Container::kQcow2) return QemuOpens(passphrase);
  const ProgramResult result =
      RunProgram({"cryptsetup", "open", "--test-passphrase", "--key-file",
                  KeyFile(passphrase), HeaderFile()});
  // 1: there is no keyslot at all; 2: wrong passphrase.
  EXPECT_LE(result.exit_code, 2) << result.err;
  const bool opens = result.exit_code == 0;
  if (container_ == Container::kRawLuks1) {
    EXPECT_EQ(QemuOpens(passphrase), opens) << passphrase;
  }
  return opens;
}

bool LuksVolumes::Opens(const std::string& passphrase) const {
  const ProgramResult result =
      Pellucid({"export", "--key-file", KeyFile(passphrase), "--hash", "sha256",
                "--force", "/dev/null"});
  const bool opens = result.exit_code == 0;
  if (opens) {
    EXPECT_EQ(result.out, plaintext_hash_) << passphrase;
  } else {
    EXPECT_EQ(result.exit_code, 3) << result.err;
  }
  EXPECT_EQ(OthersOpen(passphrase), opens) << passphrase;
  return opens;
}

void LuksVolumes::AddByOthers(const std::string& existing,
                              const std::string& passphrase) const {
  if (container_ == Container::kQcow2 || container_ == Container::kRawLuks1) {
    const std::string prefix =
        container_ == Container::kQcow2 ? "encrypt." : "";
    RunTool(
        {"qemu-img", "amend", "--object", Secret("s", existing), "--object",
         Secret("n", passphrase), "-o",
         fmt::format("{0}state=active,{0}new-secret=n,{0}iter-time=10", prefix),
         "--image-opts", QemuImage("s")});
    return;
  }
  RunTool({"cryptsetup", "luksAddKey", "--key-file", KeyFile(existing),
           "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
           HeaderFile(), KeyFile(passphrase)});
}

}  // namespace pellucid
