#ifndef PELLUCID_TOOLS_MOUNT_HELPER_H_
#define PELLUCID_TOOLS_MOUNT_HELPER_H_

#include <boost/program_options/options_description.hpp>
#include <optional>
#include <string>
#include <vector>

namespace pellucid::cli {

// The name under which the program is what mount(8) starts for the type
// "pellucid" and for lines of fstab(5).
inline constexpr char kMountHelperName[] = "mount.pellucid";

// What mount(8) says to such a helper, as the words behind `pellucid mount`:
// SPEC DIR [-fnsv] [-t TYPE] [-o OPTION,...]. Options of that subcommand, which
// `table` lists, go behind -o under the same names: key-file=FILE,no-backing.
// What is for fstab's other readers is dropped (noauto, user, x-systemd...),
// and so is rw, which mount(8) says by itself. Nothing is to be done if there
// are no words (-f). Throws boost::program_options::error.
std::optional<std::vector<std::string>> WordsOfMountHelper(
    const std::vector<std::string>& words,
    const boost::program_options::options_description& table);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MOUNT_HELPER_H_
