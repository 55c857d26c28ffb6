"""Files that appear whole or not at all, and files to which whole lines are appended."""

import fcntl
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from sae.errors import SaeError

logger = logging.getLogger(__name__)

Bytes = bytes | memoryview
TEMPORARY = ".tmp"
"""Suffix of a file that is still being written; one that is left over can be removed."""


def write_durably(path: Path, pieces: Iterable[Bytes], error: type[SaeError] = SaeError) -> str:
    """Write a file so that, whatever happens, either all of it or nothing is there under its name.

    Written beside its place, flushed to the disk, renamed, and the rename flushed.

    Args:
        path: where the file is to be; its folder is made.
        pieces: its bytes.
        error: what to raise when the disk is full or the folder cannot be written.

    Returns:
        The sha256 of what was written, computed on the way.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as cause:
        _discard(temporary)
        raise error(f"{path}: could not be written: {cause.strerror or cause}.") from cause
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    """Remove a file that a failed write left behind; the first error is the one worth reporting."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


class Journal:
    """A file of JSON lines that is only ever appended to; reading takes in what other processes have added since.

    A line is written whole, under a lock on the file, and flushed to the disk before anybody hears of it, so writers in
    any number of threads and processes lose nothing.

    Args:
        path: of the file, which is made by the first line.
        take: is given every line once, in order; raises ValueError, KeyError or TypeError for what is no line of this
            file, which is then left out with a warning.
        error: what to raise when the file cannot be written.
    """

    def __init__(self, path: Path, take: Callable[[Any], None], error: type[SaeError] = SaeError) -> None:
        self.path, self.lock = path, threading.RLock()
        self._take, self._error, self._read_to = take, error, 0

    def append(self, make: Callable[[], Any]) -> None:
        """Write what `make` returns as one line; it is called under the lock, when all earlier lines are known."""
        with self.lock, self._locked() as file:
            self.refresh()
            line = json.dumps(make(), ensure_ascii=False, allow_nan=False).encode() + b"\n"
            # After a crash in mid-line the next one begins on a line of its own.
            torn = file.tell() > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
            file.write(b"\n" + line if torn else line)
            file.flush()
            os.fsync(file.fileno())
            self.refresh()

    def refresh(self) -> None:
        """Take in the lines that are new; one without its end is still being written."""
        with self.lock:
            if not self.path.is_file():
                return
            with self.path.open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read_to += len(whole)
            for number, line in enumerate(whole.split(b"\n")):
                if line:
                    self._taken(line, number)

    def _taken(self, line: bytes, number: int) -> None:
        try:
            self._take(json.loads(line))
        except (ValueError, KeyError, TypeError) as cause:
            logger.warning("%s: new line %d is no act and is left out: %r", self.path, number, cause)

    def _locked(self) -> IO[bytes]:
        """Open the file at its end; it is locked until it is closed."""
        try:
            file = self.path.open("ab+")
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0, os.SEEK_END)
        except OSError as cause:
            raise self._error(f"{self.path}: cannot be written: {cause.strerror}.") from cause
        return file
