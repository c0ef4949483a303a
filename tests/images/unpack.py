#!/usr/bin/env python3
"""Unpacks the test images.

    unpack.py [--from FOLDER] DEST [CASE ...]

FOLDER (this one by default) holds manifest.json and the packed files that it
names. Without CASE every file is unpacked. A file that is in DEST is complete:
each is written under another name, checked against its sha256 and renamed. Any
number of these programs may fill the same DEST at once.
"""

import argparse
import fcntl
import hashlib
import json
import lzma
import os
import pathlib
import sys

CHUNK = 64 * 1024
ZEROS = bytes(CHUNK)


def write_sparse(packed, partial):
    """Writes what `packed` unpacks to; returns its sha256."""
    digest = hashlib.sha256()
    with lzma.open(packed) as source, open(partial, "wb") as target:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            if chunk == ZEROS[: len(chunk)]:
                target.seek(len(chunk), os.SEEK_CUR)
            else:
                target.write(chunk)
        target.truncate(target.tell())
    return digest.hexdigest()


def unpack(folder, dest, entry):
    unknown = entry.keys() - {"name", "packed", "packed_size", "sha256", "size"}
    if unknown:
        sys.exit(f"{folder}: {entry['name']} is packed in a way that is not "
                 f"known here: {', '.join(sorted(unknown))}")
    path = dest / entry["name"]
    if path.exists():
        return
    partial = dest / (entry["name"] + ".partial")
    found = write_sparse(folder / entry["packed"], partial)
    if found != entry["sha256"]:
        sys.exit(f"{entry['packed']}: unpacks to sha256 {found}, "
                 f"the manifest says {entry['sha256']}")
    partial.rename(path)


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--from", dest="folder", type=pathlib.Path,
                           default=pathlib.Path(__file__).resolve().parent)
    arguments.add_argument("dest", type=pathlib.Path, metavar="DEST")
    arguments.add_argument("cases", nargs="*", metavar="CASE")
    given = arguments.parse_args()

    manifest = json.loads((given.folder / "manifest.json").read_text("utf-8"))
    by_id = {case["id"]: case for case in manifest["cases"]}
    missing = [case for case in given.cases if case not in by_id]
    if missing:
        sys.exit(f"{given.folder}: has no case {', '.join(missing)}")
    wanted = {name for case in given.cases or by_id
              for name in by_id[case]["files"]}

    given.dest.mkdir(parents=True, exist_ok=True)
    with open(given.dest / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for entry in manifest["files"]:
            if entry["name"] in wanted:
                unpack(given.folder, given.dest, entry)


if __name__ == "__main__":
    main()
