# Run by cpack on what it is about to pack: Debian's policy wants manual pages
# and the changelog compressed, without a time in them.
file(GLOB_RECURSE DOCUMENTS
  ${CPACK_TEMPORARY_DIRECTORY}/usr/share/man/*
  ${CPACK_TEMPORARY_DIRECTORY}/usr/share/doc/*/changelog)
execute_process(COMMAND gzip -9 --no-name ${DOCUMENTS} COMMAND_ERROR_IS_FATAL ANY)
