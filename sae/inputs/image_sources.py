"""Pictures in files: an image folder, a list of paths, the tar shards of a webdataset."""

import csv
import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from sae.errors import InputsError, nearest
from sae.inputs.configs import ImageInputsConfig

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_IMAGE_COLUMNS = ("image", "path", "file_name")
_METADATA = ("metadata.jsonl", "metadata.csv")
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Picture:
    """One encoded picture and what is said about it; `reference` is plain JSON from which it can be found again."""

    reference: Mapping[str, Any]
    data: bytes
    caption: str | None


class Source(Protocol):
    """An ordered collection of pictures."""

    def __len__(self) -> int: ...

    def picture(self, index: int) -> Picture:
        """Read one picture."""
        ...

    def classes(self) -> Sequence[str | None]:
        """Return the class of every picture, None where nothing is said."""
        ...

    def fingerprint_parts(self) -> Iterator[bytes]:
        """Yield what identifies the collection."""
        ...


@dataclass(frozen=True)
class Entry:
    """Where one picture lies: a file, or `size` bytes of one from `offset` on."""

    file: Path
    reference: Mapping[str, Any]
    caption: str | None = None
    label: str | None = None
    offset: int = 0
    size: int = -1

    def read(self, at_most: int | None = None) -> bytes:
        """Return its bytes, or the first few of them."""
        size = self.size if at_most is None else min(at_most, self.size) if self.size >= 0 else at_most
        with self.file.open("rb") as file:
            file.seek(self.offset)
            return file.read(size)


class Files:
    """Pictures that are files, or parts of files.

    The fingerprint covers each one's reference, caption, class, size and first 4 kB, not its time of change, so a copy
    of a folder has the same one; that two pictures of equal size differ only behind their first 4 kB is not noticed.
    """

    def __init__(self, entries: Sequence[Entry], where: str):
        if not entries:
            raise InputsError(f"{where}: no images in it; known are {', '.join(sorted(SUFFIXES))}.")
        self._entries = entries

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._entries)

    def picture(self, index: int) -> Picture:
        """Read one picture.

        Raises:
            InputsError: its file cannot be read.
        """
        entry = self._entries[index]
        try:
            return Picture(entry.reference, entry.read(), entry.caption)
        except OSError as error:
            raise InputsError(f"{entry.file}: cannot be read: {error}") from error

    def classes(self) -> list[str | None]:
        """Return the class of every picture."""
        return [entry.label for entry in self._entries]

    def fingerprint_parts(self) -> Iterator[bytes]:
        """Yield a few bytes per picture."""
        for entry in self._entries:
            size = entry.size if entry.size >= 0 or not entry.file.is_file() else entry.file.stat().st_size
            about = json.dumps([dict(entry.reference), entry.caption, entry.label, size], sort_keys=True)
            head = entry.read(_HEAD_BYTES) if entry.file.is_file() else b""
            yield about.encode() + hashlib.sha256(head).digest()


def open_folder(folder: Path, config: ImageInputsConfig) -> Files:
    """Open a folder of images; the folder an image lies in, if any, is its class.

    Their order is that of the SHA-256 of their paths within the folder: the same for every copy of it, and without
    regard to class, so that the first images, a shard, or every n-th image are a fair sample of all.
    """
    captions: dict[str, str] = {}
    if config.caption_column is not None:
        found = [folder / name for name in _METADATA if (folder / name).is_file()]
        if not found:
            raise InputsError(f"{folder}: caption_column is set, but there is no {' or '.join(_METADATA)}.")
        for where, row in _rows(found[0]):
            check_columns(row, where, "file_name", config.caption_column)
            captions[row["file_name"]] = row[config.caption_column]
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    entries = []
    for name in sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()):
        label = PurePosixPath(name).parent.name or None
        entries.append(Entry(folder / name, {"path": name}, captions.get(name), label))
    return Files(entries, str(folder))


def open_list(paths: Sequence[Path], config: ImageInputsConfig) -> Files:
    """Open files of JSON lines or CSV, each row with the path of an image relative to its file."""
    entries = []
    for path in paths:
        for where, row in _rows(path):
            check_columns(row, where, config.caption_column, config.class_column)
            name = row[image_column(row, config, where)]
            caption = row[config.caption_column] if config.caption_column else None
            label = str(row[config.class_column]) if config.class_column else None
            entries.append(Entry(path.parent / name, {"path": name}, caption, label))
    return Files(entries, str(paths[0]))


def open_tars(paths: Sequence[Path], config: ImageInputsConfig) -> Files:
    """Open the shards of a webdataset: members that share a path up to their name's first dot are one example.

    Tars are read in place and must be uncompressed.
    """
    entries = [entry for path in paths for entry in _tar_entries(path, config.caption_column, config.class_column)]
    return Files(entries, str(paths[0]))


def _tar_entries(path: Path, caption_suffix: str | None, class_suffix: str | None) -> list[Entry]:
    images: dict[str, Entry] = {}
    captions: dict[str, str] = {}
    classes: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}"
                if f".{suffix}".lower() in SUFFIXES:
                    reference = {"path": path.name, "member": member.name}
                    images[key] = Entry(path, reference, offset=member.offset_data, size=member.size)
                for wanted, texts in ((caption_suffix, captions), (class_suffix, classes)):
                    content = tar.extractfile(member) if suffix == wanted else None
                    if content is not None:
                        texts[key] = content.read().decode().strip()
    except (OSError, tarfile.TarError, UnicodeDecodeError) as error:
        raise InputsError(f"{path}: not an uncompressed tar that can be read: {error}") from error
    return [replace(entry, caption=captions.get(key), label=classes.get(key)) for key, entry in images.items()]


def check_columns(columns: Iterable[str], where: str, *wanted: str | None) -> None:
    """Check that columns are there.

    Raises:
        InputsError: one is not; names the nearest.
    """
    for column in wanted:
        if column is not None and column not in columns:
            raise InputsError(f"{where}: no column {column!r}.{nearest(column, columns)}")


def image_column(columns: Iterable[str], config: ImageInputsConfig, where: str) -> str:
    """Return the column that holds the image: the config's, or the first of the usual ones."""
    if config.image_column is not None:
        check_columns(columns, where, config.image_column)
        return config.image_column
    found = [column for column in _IMAGE_COLUMNS if column in columns]
    if not found:
        usual = ", ".join(_IMAGE_COLUMNS)
        raise InputsError(f"{where}: no image column ({usual}) among {list(columns)}; set image_column.")
    return found[0]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a .csv, or of a file of JSON lines, each with its place."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file) if path.suffix == ".csv" else (json.loads(x) for x in file if x.strip())
            for number, row in enumerate(lines, start=1):
                if not isinstance(row, dict):
                    raise InputsError(f"{path}, row {number}: not a JSON object.")
                yield f"{path}, row {number}", row
    except (OSError, ValueError, csv.Error) as error:
        raise InputsError(f"{path}: cannot be read as rows of JSON or CSV: {error}") from error
