"""Documents from text files, JSON lines, Parquet files and the Hugging Face hub, one after another, read lazily."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae.errors import InputsError, nearest
from sae.inputs.configs import TextInputsConfig

SUFFIXES = (".txt", ".jsonl", ".parquet")
_PIECE_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class Piece:
    """A document, or a part of one; `ends` is False where the same document goes on in the next piece."""

    content: Any
    where: str
    ends: bool = True


def find_files(path: Path) -> list[Path]:
    """Return a file, or the files of a folder by name.

    Raises:
        InputsError: nothing is there, or nothing that can be read.
    """
    path = path.expanduser()
    if path.is_file() and path.suffix in SUFFIXES:
        return [path]
    if path.is_file():
        raise InputsError(f"{path}: cannot read files of this kind.{nearest(path.suffix, SUFFIXES)}")
    if not path.is_dir():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputsError(f"{path}: no such file or folder.{nearest(path.name, siblings)}")
    files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    if not files:
        raise InputsError(f"{path}: no {', '.join(SUFFIXES)} file in this folder.")
    return files


def content_hash(files: list[Path]) -> str:
    """Return a sha256 over the contents of files in order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def read_documents(config: TextInputsConfig) -> Iterator[Piece]:
    """Yield documents in a fixed order.

    Raises:
        InputsError: a file, a column or a data set that cannot be read, naming the place.
    """
    column = config.column or ("messages" if config.format == "chat" else "text")
    if config.path is None:
        yield from _hub(config, column)
        return
    for file in find_files(config.path):
        if file.suffix == ".txt":
            yield from _text(file, whole=config.packing == "packed")
        else:
            yield from (_json_lines if file.suffix == ".jsonl" else _parquet)(file, column)


def _text(file: Path, whole: bool) -> Iterator[Piece]:
    try:
        with file.open(encoding="utf-8") as lines:
            if not whole:
                numbered = ((line.strip(), number) for number, line in enumerate(lines, start=1))
                yield from (Piece(line, f"{file}, line {number}") for line, number in numbered if line)
                return
            while piece := "".join(lines.readlines(_PIECE_CHARACTERS)):
                yield Piece(piece, str(file), ends=False)
            yield Piece("", str(file))
    except UnicodeDecodeError as error:
        raise InputsError(f"{file}: not UTF-8 text: {error}") from error


def _json_lines(file: Path, column: str) -> Iterator[Piece]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{file}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except ValueError as error:
                raise InputsError(f"{where}: not JSON in UTF-8: {error}") from error
            yield _cell(row, column, where)


def _parquet(file: Path, column: str) -> Iterator[Piece]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise InputsError(f"{file}: not a Parquet file: {error}") from error
    if column not in table.schema_arrow.names:
        raise InputsError(f"{file}: no column {column!r}.{nearest(column, table.schema_arrow.names)}")
    number = 0
    for group in table.iter_batches(batch_size=256, columns=[column]):
        for content in group.column(0).to_pylist():
            number += 1
            yield Piece(content, f"{file}, row {number}")


def _hub(config: TextInputsConfig, column: str) -> Iterator[Piece]:
    from datasets import load_dataset

    name = str(config.hub)
    try:
        rows = load_dataset(name, config.subset, split=config.split, revision=config.revision, streaming=True)
        for number, row in enumerate(rows):
            yield _cell(row, column, f"{name}, row {number}")
    except (OSError, ValueError) as error:
        raise InputsError(f"{name}: cannot be read from the hub: {error}") from error


def _cell(row: Any, column: str, where: str) -> Piece:
    columns = list(row) if isinstance(row, dict) else []
    if column not in columns:
        raise InputsError(f"{where}: no column {column!r}.{nearest(column, columns)}")
    return Piece(row[column], where)
