#ifndef PELLUCID_ENGINE_IMAGE_SNAPSHOTS_H_
#define PELLUCID_ENGINE_IMAGE_SNAPSHOTS_H_

#include <filesystem>
#include <string>
#include <vector>

#include "engine/image_info.h"
#include "engine/layer_file.h"

namespace pellucid {

// The internal snapshots of a qcow2 image. Needs no passphrase, and looks at no
// backing file. All throw UsageError for what is no qcow2 image, ImageLocked,
// CorruptImage and IoError.

// Those there are. `force_share` reads although another program writes.
std::vector<SnapshotInfo> ListSnapshots(const std::filesystem::path& image,
                                        bool force_share);

// The image locked for changes; each is durable when it returns, and a power
// cut leaves what there was or what there is to be (snapshot_changes.h, which
// says what they throw besides). For one thread.
class ImageSnapshots {
 public:
  explicit ImageSnapshots(const std::filesystem::path& image);

  // Keeps the present state under that name; gives the id of the snapshot.
  std::string Create(const std::string& name);
  void Delete(const std::string& id_or_name);
  // Goes back to the snapshot; the present state is lost.
  void Apply(const std::string& id_or_name);

 private:
  const std::string file_name_;
  LayerFile file_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_IMAGE_SNAPSHOTS_H_
