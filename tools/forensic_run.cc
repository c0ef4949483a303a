#include "tools/forensic_run.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <boost/program_options/value_semantic.hpp>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

#include "crypto/hash.h"
#include "engine/errors.h"
#include "engine/host_file.h"
#include "engine/host_file_rules.h"
#include "engine/io_error.h"
#include "engine/open_image.h"
#include "engine/printable.h"
#include "tools/file_descriptor.h"
#include "tools/manifest_format.h"
#include "tools/utc_date.h"

namespace pellucid::cli {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr size_t kReadBytes = size_t{1} << 20;

std::string FormatTime(const timespec& time) {
  return FormatUtcDate(time.tv_sec, static_cast<uint32_t>(time.tv_nsec));
}

bool SameTime(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

// What differs between two looks at a file; empty if nothing does. Nodes of
// devices have times of their own, which say nothing of the content.
std::string DifferenceOf(const struct stat& before, const struct stat& after) {
  if (!(HostFileId::Of(before) == HostFileId::Of(after))) {
    return "another file has taken its place";
  }
  if (S_ISBLK(before.st_mode)) return "";
  if (before.st_size != after.st_size) return "its size is another";
  if (!SameTime(before.st_mtim, after.st_mtim)) return "it was written";
  if (!SameTime(before.st_ctim, after.st_ctim)) return "its inode was changed";
  if (!SameTime(before.st_atim, after.st_atim)) return "it was read";
  return "";
}

// A file that was read, open until it is looked at again.
struct Evidence {
  fs::path file;  // Absolute: the process may go to another folder.
  FileDescriptor descriptor;
  struct stat status = {};
  std::string sha256;  // Empty unless it was asked for.
};

// Lines with times, in a file of their own or on standard error. Safe to call
// from many threads.
class ForensicLog {
 public:
  // Throws UsageError if there is something at `file`, which could be evidence.
  explicit ForensicLog(const std::string& file) : name_(file) {
    if (file.empty()) return;
    file_.emplace(open(file.c_str(),
                       O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC,
                       S_IRUSR | S_IWUSR));
    if (file_->is_open()) return;
    if (errno != EEXIST) ThrowIoError(errno, file);
    throw UsageError(
        fmt::format("{}: the file exists; a log needs a new one", file));
  }

  void Write(const std::string& text) {
    timespec now = {};
    clock_gettime(CLOCK_REALTIME, &now);
    const std::string line =
        fmt::format("{} {}\n", FormatTime(now), Printable(text));
    const std::lock_guard lock(mutex_);
    if (!file_) {
      fmt::print(stderr, "pellucid: {}", line);
    } else if (write(file_->get(), line.data(), line.size()) !=
               static_cast<ssize_t>(line.size())) {
      ThrowIoError(errno, name_);
    }
  }

 private:
  const std::string name_;
  std::optional<FileDescriptor> file_;  // Empty: standard error.
  std::mutex mutex_;                    // Keeps lines whole.
};

// What a run has opened. Safe to call from many threads.
class ForensicRecord {
 public:
  ForensicRecord(const std::string& log, bool hash) : log_(log), hash_(hash) {}

  void Say(const std::string& text) { log_.Write(text); }

  void NoteOpened(const OpenedHostFile& opened) {
    const fs::path file = fs::absolute(opened.file);
    switch (opened.use) {
      case HostFileUse::kEvidence:
        return NoteEvidence(file, opened.fd);
      case HostFileUse::kSecret:
        return Say(fmt::format("read as a key: {}", file.native()));
      case HostFileUse::kOutput:
        return Say(fmt::format("opened for writing: {}", file.native()));
    }
  }

  // Returns the names of the files that have changed, and why.
  std::vector<std::string> LookAgain() {
    std::vector<std::string> changed;
    const std::lock_guard lock(mutex_);
    for (const Evidence& evidence : evidence_) {
      const std::string difference = Compare(evidence);
      const std::string name = evidence.file.native();
      Say(difference.empty()
              ? fmt::format("unchanged: {}", name)
              : fmt::format("CHANGED: {}: {}", name, difference));
      if (!difference.empty()) {
        changed.push_back(fmt::format("{}: {}", name, difference));
      }
    }
    return changed;
  }

 private:
  void NoteEvidence(const fs::path& file, int fd) {
    Evidence evidence = {
        .file = file,
        .descriptor = FileDescriptor(fcntl(fd, F_DUPFD_CLOEXEC, 0)),
        .status = StatHostFile(fd, file),
        .sha256 = ""};
    if (!evidence.descriptor.is_open()) ThrowIoError(errno, file.native());
    const struct stat& status = evidence.status;
    Say(fmt::format(
        "opened for reading: {} (device {}:{}, inode {}, {} bytes, modified "
        "{}, changed {}, accessed {}); locked in the kernel, by shared locks "
        "on bytes that nothing is written to",
        file.native(), major(status.st_dev), minor(status.st_dev),
        status.st_ino, HostFileSize(fd, file), FormatTime(status.st_mtim),
        FormatTime(status.st_ctim), FormatTime(status.st_atim)));
    const std::lock_guard lock(mutex_);
    const auto same = [&](const Evidence& other) {
      return HostFileId::Of(other.status) == HostFileId::Of(status);
    };
    if (std::ranges::any_of(evidence_, same)) return;
    if (hash_) evidence.sha256 = HashOf(evidence, "before");
    evidence_.push_back(std::move(evidence));
  }

  std::string HashOf(const Evidence& evidence, const char* when) {
    const int fd = evidence.descriptor.get();
    const auto hasher = crypto::MakeHasher("sha256");
    std::vector<std::byte> buffer(kReadBytes);
    const uint64_t size = HostFileSize(fd, evidence.file);
    for (uint64_t at = 0; at < size; at += buffer.size()) {
      buffer.resize(
          static_cast<size_t>(std::min<uint64_t>(buffer.size(), size - at)));
      ReadFromHostFile(fd, evidence.file, at, buffer);
      hasher->Update(buffer);
    }
    std::vector<std::byte> digest(hasher->digest_size());
    hasher->Final(digest);
    std::string hex = FormatHex(digest);
    Say(fmt::format("sha256 {}: {}  {}", when, hex, evidence.file.native()));
    return hex;
  }

  std::string Compare(const Evidence& evidence) {
    if (!evidence.sha256.empty() &&
        HashOf(evidence, "after") != evidence.sha256) {
      return "its SHA-256 is another";
    }
    struct stat now = {};
    if (stat(evidence.file.c_str(), &now) != 0) return "it is gone";
    return DifferenceOf(evidence.status, now);
  }

  ForensicLog log_;
  const bool hash_;
  std::mutex mutex_;  // Held while a file is hashed, for its first opener.
  std::vector<Evidence> evidence_;  // Guarded by mutex_.
};

std::string CommandLine(std::string_view subcommand,
                        const std::vector<std::string>& words) {
  std::string line =
      fmt::format("pellucid {}: {}", PELLUCID_VERSION, subcommand);
  for (const std::string& word : words) line += fmt::format(" '{}'", word);
  return line;
}

}  // namespace

void ForensicArguments::AddTo(po::options_description& options) {
  options.add_options()  //
      ("forensic", po::bool_switch(&forensic_),
       "change nothing: open for reading only, refuse where reading would "
       "change access times, log every opened file with the time in UTC, and "
       "look at the end whether it is as it was")  //
      ("evidence-hash", po::bool_switch(&evidence_hash_),
       "with --forensic: compute the SHA-256 of every file before and after, "
       "and fail if it has changed")  //
      ("log", po::value(&log_)->value_name("FILE"),
       "with --forensic: log to this new file, not to standard error");
}

void ForensicArguments::Check() const {
  if (!forensic_ && (evidence_hash_ || !log_.empty())) {
    throw UsageError("--evidence-hash and --log need --forensic");
  }
}

void ForensicArguments::RefuseWriting(std::string_view what) const {
  Check();
  if (forensic_) {
    throw UsageError(fmt::format("{} writes; it cannot be --forensic", what));
  }
}

int RunForensically(const ForensicArguments& arguments,
                    std::string_view subcommand,
                    const std::vector<std::string>& words,
                    const std::function<int()>& run) {
  arguments.Check();
  if (!arguments.wanted()) return run();
  ForensicRecord record(arguments.log(), arguments.evidence_hash());
  record.Say(CommandLine(subcommand, words));
  // A copy: what it refers to is set in the next line.
  // NOLINTNEXTLINE(performance-unnecessary-copy-initialization)
  const HostFileRules before = GetHostFileRules();
  SetHostFileRules(
      {.keep_evidence = true, .on_open = [&](const OpenedHostFile& opened) {
         if (before.on_open) before.on_open(opened);
         record.NoteOpened(opened);
       }});
  int exit_code = 0;
  try {
    exit_code = run();
  } catch (const std::exception& error) {
    SetHostFileRules(before);
    record.Say(fmt::format("failed: {}", error.what()));
    record.LookAgain();
    throw;
  }
  SetHostFileRules(before);
  const std::vector<std::string> changed = record.LookAgain();
  if (!changed.empty()) {
    throw Error(ExitCode::kFailure, "evidence has changed: " + changed.front());
  }
  record.Say(fmt::format("ended with exit code {}", exit_code));
  return exit_code;
}

}  // namespace pellucid::cli
