# What `cpack -G DEB` and `cpack -G RPM` need to know.
set(PELLUCID_MAINTAINER "The pellucid authors <maintainers@pellucid.invalid>"
    CACHE STRING "Whom the packages name as the one to write to")

set(CPACK_PACKAGE_CONTACT ${PELLUCID_MAINTAINER})
set(CPACK_PACKAGE_VENDOR "The pellucid authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY
    "show the plaintext of an encrypted disk image as a file")
set(CPACK_PACKAGE_DESCRIPTION
"pellucid opens qcow2 and raw disk images that are encrypted with LUKS1, LUKS2
or the legacy AES of qcow2, with detached headers too, and shows what is in
them as an ordinary file by way of FUSE: to be read and written by any program,
without root, a kernel module or a virtual machine. It also makes, checks,
repairs, maps and resizes images, and changes their passphrases.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_PACKAGE_RELOCATABLE OFF)
set(CPACK_STRIP_FILES ON)
set(CPACK_GENERATOR DEB RPM)
# Whatever the umask was of who has checked this out.
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE
  WORLD_READ WORLD_EXECUTE)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_SOURCE_DIR}/compress_documents.cmake)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION utils)
# What the program is linked to, in the versions that it needs at least. fuse3
# has fusermount3, by which users who are not root mount.
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS fuse3)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(CPACK_RPM_FILE_NAME RPM-DEFAULT)
set(CPACK_RPM_PACKAGE_LICENSE MIT)
set(CPACK_RPM_PACKAGE_DESCRIPTION ${CPACK_PACKAGE_DESCRIPTION})
set(CPACK_RPM_PACKAGE_REQUIRES fuse3)
set(CPACK_RPM_SPEC_MORE_DEFINE "%define _build_id_links none")
# Folders that belong to other packages.
set(CPACK_RPM_EXCLUDE_FROM_AUTO_FILELIST_ADDITION
  /usr/sbin /usr/lib/systemd /usr/lib/systemd/system
  /usr/share/man /usr/share/man/man1 /usr/share/man/man8
  /usr/share/bash-completion /usr/share/bash-completion/completions
  /usr/share/zsh /usr/share/zsh/site-functions
  /usr/share/fish /usr/share/fish/vendor_completions.d)

include(CPack)
