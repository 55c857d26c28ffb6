"""Pictures as they lie on disk or on the hub: image folders, JSON lines, parquet, webdataset tars, hub datasets."""

import csv
import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from sae.errors import InputsError, nearest

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_IMAGE_COLUMNS = ("image", "path", "file_name", "jpg", "png")
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


class Table:
    """Pictures in a `datasets.Dataset`, one per row, in the column that holds images."""

    def __init__(self, dataset: Any, where: str, caption_column: str | None, class_column: str | None):
        columns = dataset.column_names
        self._image = _image_column(columns, where)
        for column in (caption_column, class_column):
            if column is not None and column not in columns:
                raise InputsError(f"{where}: no column {column!r}.{nearest(column, columns)}")
        self._dataset, self._where = dataset, where
        self._caption, self._class = caption_column, class_column

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._dataset)

    @cached_property
    def _undecoded(self) -> Any:
        from datasets import Image

        is_image = isinstance(self._dataset.features[self._image], Image)
        return self._dataset.cast_column(self._image, Image(decode=False)) if is_image else self._dataset

    def picture(self, index: int) -> Picture:
        """Read one row, whose image is bytes, a path, or both as `datasets` keeps them.

        Raises:
            InputsError: the row holds no image.
        """
        row = self._undecoded[index]
        value = row[self._image]
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            value = Entry(Path(value), {}).read() if Path(value).is_file() else None
        if not isinstance(value, bytes):
            raise InputsError(f"{self._where}: row {index} holds no image in column {self._image!r}.")
        return Picture({"row": index}, value, row[self._caption] if self._caption else None)

    def classes(self) -> list[str | None]:
        """Return the class of every row, by name where the dataset names its classes."""
        if self._class is None:
            return [None] * len(self)
        named = getattr(self._dataset.features[self._class], "names", None)
        values = self._dataset[self._class]
        return [None if value is None else named[value] if named else str(value) for value in values]

    def fingerprint_parts(self) -> Iterator[bytes]:
        """Yield the files the dataset was made from, with their sizes, its columns, and its first picture."""
        files = {name: entry.get("num_bytes") for name, entry in (self._dataset.info.download_checksums or {}).items()}
        about = [sorted(files.items()), self._dataset.column_names, len(self), self._caption, self._class]
        yield json.dumps(about).encode()
        yield self.picture(0).data


def open_folder(folder: Path, caption_file: str | None) -> Files:
    """Open a folder of images in the order of their paths; the folder an image lies in, if any, is its class.

    `caption_file` is a .jsonl or .csv within it with the columns `file_name` and `text`.
    """
    captions: dict[str, str] = {}
    if caption_file is not None:
        for number, row in enumerate(_rows(folder / caption_file), start=1):
            if "file_name" not in row or "text" not in row:
                raise InputsError(f"{folder / caption_file}: row {number} needs file_name and text, has {list(row)}.")
            captions[row["file_name"]] = row["text"]
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    entries = []
    for name in names:
        parent = PurePosixPath(name).parent.as_posix()
        label = None if parent == "." else parent
        entries.append(Entry(folder / name, {"path": name}, captions.get(name), label))
    return Files(entries, str(folder))


def open_jsonl(path: Path, caption_column: str | None, class_column: str | None) -> Files:
    """Open a file of JSON lines (or CSV), each with the path of an image relative to it."""
    entries = []
    for number, row in enumerate(_rows(path), start=1):
        name = row[_image_column(row, f"{path}, row {number}")]
        for column in (caption_column, class_column):
            if column is not None and column not in row:
                raise InputsError(f"{path}: row {number} has no {column!r}.{nearest(column, row)}")
        caption = None if caption_column is None else str(row[caption_column])
        label = None if class_column is None else str(row[class_column])
        entries.append(Entry(path.parent / name, {"path": name}, caption, label))
    return Files(entries, str(path))


def open_webdataset(path: Path, with_captions: bool) -> Files:
    """Open one tar, or a folder of them: members that share a name up to the first dot are one example.

    Images by their suffix, captions from `.txt`, classes from `.cls`. Tars are read in place and must be uncompressed.
    """
    tars = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    entries = [entry for tar in tars for entry in _tar_entries(tar, with_captions)]
    return Files(entries, str(path))


def _tar_entries(path: Path, with_captions: bool) -> list[Entry]:
    images: dict[str, Entry] = {}
    texts: dict[str, dict[str, str]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                if f".{suffix}".lower() in SUFFIXES:
                    reference = {"path": path.name, "member": member.name}
                    images[key] = Entry(path, reference, offset=member.offset_data, size=member.size)
                elif suffix == "cls" or (suffix == "txt" and with_captions):
                    data = tar.extractfile(member)
                    texts.setdefault(key, {})[suffix] = "" if data is None else data.read().decode().strip()
    except (OSError, tarfile.TarError, UnicodeDecodeError) as error:
        raise InputsError(f"{path}: not an uncompressed tar that can be read: {error}") from error
    return [
        replace(entry, caption=texts.get(key, {}).get("txt"), label=texts.get(key, {}).get("cls"))
        for key, entry in images.items()
    ]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a .csv, or of a file of JSON lines."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                yield from csv.DictReader(file)
                return
            yield from (json.loads(line) for line in file if line.strip())
    except (OSError, ValueError) as error:
        raise InputsError(f"{path}: cannot be read as rows of JSON or CSV: {error}") from error


def _image_column(columns: Iterable[str], where: str) -> str:
    found = [column for column in _IMAGE_COLUMNS if column in columns]
    if not found:
        raise InputsError(f"{where}: no image column ({', '.join(_IMAGE_COLUMNS)}) among {list(columns)}.")
    return found[0]
