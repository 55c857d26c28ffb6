"""Files that appear whole or not at all."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from sae.errors import SaeError

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
