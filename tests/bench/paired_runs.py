"""What the comparisons share: images made by qemu-img, and paired rounds.

Every figure is a ratio of two runs that follow each other (A B A B ...), so
that a machine whose speed drifts is unfair to neither side.
"""

import mmap
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

MIB = 1 << 20
PASSPHRASE = "correct horse"
# qemu-img measures its key derivation, and fails where the clock of CPU time
# is too coarse for it.
TRANSIENT = "Unable to get accurate CPU usage"


class Failure(Exception):
    """A program did not do its work."""


def sh(words, **options):
    """Runs a program; its output. Raises Failure with what it complained of."""
    words = [str(word) for word in words]
    done = subprocess.run(words, text=True, capture_output=True, **options)
    if done.returncode != 0:
        complaint = (done.stderr or done.stdout).strip()[-500:]
        raise Failure(f"{' '.join(words)[:200]}: exit {done.returncode}: "
                      f"{complaint}")
    return done.stdout


def seconds(run):
    begin = time.monotonic()
    run()
    return time.monotonic() - begin


def touch_free_memory(size):
    """Takes and gives back so many bytes of memory. A virtual machine may have
    left what it does not use to its host, and who uses it first waits until it
    is back: more than all the rest of a fast copy."""
    mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS |
              mmap.MAP_POPULATE).close()


def cannot_run(text):
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr)
    sys.exit(2)


def require(programs):
    """Exits with 2 unless all these programs can be called."""
    missing = [p for p in programs if not shutil.which(str(p))]
    if missing:
        cannot_run("these programs are needed and not there: " +
                   ", ".join(str(p) for p in missing))


def clean_up_when_stopped():
    """A signal that ends the program unwinds it, so that nothing is left."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


class Images:
    """A scratch folder with a key file, random plaintext and encrypted images
    that qemu-img made of it (qcow2, embedded LUKS, its default cipher
    aes-256-xts and 64 KiB clusters)."""

    def __init__(self, folder, size):
        self.folder, self.size = Path(folder), size
        self.key = self.folder / "key"
        self.key.write_text(PASSPHRASE)
        self.plain = self.folder / "plain.raw"
        with open(self.plain, "wb") as plain:
            for _ in range(size // MIB):
                plain.write(os.urandom(MIB))
        self.secret = ("--object", f"secret,id=s,file={self.key}")

    def path(self, name):
        return self.folder / f"{name}.qcow2"

    @staticmethod
    def options(path, read_only=False):
        """What qemu's programs call --image-opts."""
        return (f"driver=qcow2,file.filename={path},encrypt.format=luks,"
                f"encrypt.key-secret=s{',read-only=on' * read_only}")

    def create(self, name, size=None, kdf_ms=10):
        """A new image. A key derivation of 10 ms, since it is timed by itself
        in the rows about it; None is qemu's default of 2 seconds."""
        options = "encrypt.format=luks,encrypt.key-secret=s"
        if kdf_ms is not None:
            options += f",encrypt.iter-time={kdf_ms}"
        words = ("qemu-img", "create", "-q", "-f", "qcow2", *self.secret, "-o",
                 options, self.path(name), size or self.size)
        for attempt in range(100):
            try:
                sh(words)
                return self.path(name)
            except Failure as failure:
                if TRANSIENT not in str(failure) or attempt == 99:
                    raise

    def get(self, name, make):
        """The image of that name; made by `make` if it is not there yet."""
        if not self.path(name).exists():
            make()
        return self.path(name)

    def filled(self):
        """All clusters allocated, in the order of their offsets."""
        def make():
            self.create("filled")
            sh(("qemu-img", "convert", "-n", "-f", "raw", *self.secret,
                "--target-image-opts", self.plain,
                self.options(self.path("filled"))))
        return self.get("filled", make)

    def empty(self):
        return self.get("empty", lambda: self.create("empty"))


def warm(path):
    """Brings a file into the page cache."""
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(MIB)
        while file.readinto(buffer):
            pass


class Bar:
    """What the median of the ratios (ours to theirs) has to reach."""

    def __init__(self, unit, bar, aim=None):
        self.unit, self.bar, self.aim = unit, bar, aim
        # Seconds are better if they are fewer.
        self.at_most = unit == "s"

    def is_met(self, ratio, bar):
        return ratio <= bar if self.at_most else ratio >= bar

    def judge(self, ratio):
        """Whether the bar is met, and how to say it."""
        if not self.is_met(ratio, self.bar):
            return False, "MISSED"
        if self.aim is not None and self.is_met(ratio, self.aim):
            return True, "aim met"
        return True, "met"


class Report:
    """Prints one line a row while they come, and knows whether all is met."""

    def __init__(self):
        self.all_met = True
        print(f"{'row':44}{'unit':>6}{'theirs':>11}{'ours':>11}{'ratio':>8}"
              f"{'bar':>7}{'aim':>6}  {'MiB':>4}  ")

    def add(self, name, bar, theirs, ours, peak_mib=0, max_mib=0):
        """Samples of both sides, in the order of the rounds, and the peak of
        our memory if it was looked at."""
        ratio = statistics.median(a / b for a, b in zip(ours, theirs))
        met, word = bar.judge(ratio)
        if peak_mib > max_mib:
            met, word = False, f"{word}, MEMORY over {max_mib} MiB"
        self.all_met = self.all_met and met
        digits = 3 if bar.at_most else 0
        sign = "<=" if bar.at_most else ">="
        print(f"{name:44}{bar.unit:>6}"
              f"{statistics.median(theirs):>11.{digits}f}"
              f"{statistics.median(ours):>11.{digits}f}{ratio:>8.2f}"
              f"{sign:>3}{bar.bar:<4}{bar.aim or '':>6}  {peak_mib or '':>4}  {word}",
              flush=True)

    def fail(self, name, failure):
        self.all_met = False
        print(f"{name:44}FAILED: {failure}", flush=True)
