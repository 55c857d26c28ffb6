"""The Python standard library cut into chunks, and which side of the split each of them is on.

Every installation has this text, so everything that needs language runs with no download. It differs between Python
versions, so the split is by content: files are cut into chunks, equal chunks are kept once, and the side of a chunk
(train, dictionary or score) follows from its sha256, the same on every version. Chunks are read in the order of their
hashes, which is the same whatever order the files were found in, and makes any prefix a random sample.

Left out: tests (many installations lack them), site-packages, generated modules (`pydoc_data`, `_sysconfigdata*`,
`config-*`) and `encodings`, whose 120 files repeat one frame around tables and would put near-copies on both sides.
"""

import hashlib
import io
import logging
import os
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from sae.errors import ConfigError, InputsError, nearest

SPLITS: dict[str, float] = {"train": 0.60, "dictionary": 0.25, "score": 0.15}
"""Sides of the split and their shares: for the subject, for dictionaries, and for scoring both."""

SEEN_FILE = "seen_chunks.bin"
"""In a subject's folder: the first eight bytes of the sha256 of every chunk it was trained on, sorted."""

_OUTSIDE = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "__phello__"}
_GENERATED = {"encodings", "pydoc_data"}
_SMALL, _MIDDLE, _LARGE = 256, 1024, 2048

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A passage of one file: `text` begins at character `start` of `path` (relative to the library, with slashes)."""

    digest: bytes
    path: str
    start: int
    text: str

    @property
    def side(self) -> str:
        """The split that this chunk belongs to, wherever it is found."""
        place = int.from_bytes(self.digest[:8], "big") / 2**64
        return list(SPLITS)[sum(place >= edge for edge in accumulate(list(SPLITS.values())[:-1]))]


def cut(source: str) -> list[tuple[int, str]]:
    """Cut a file into passages of about 0.25 to 2 kB; returns their first character and text.

    A cut falls before a top-level definition, after 1 kB at a blank line, and after 2 kB at any line. The rules look at
    nearby lines only, so that after an edit the cuts of two versions of a file fall together again.
    """
    passages, start, position, previous = [], 0, 0, ""
    for line in io.StringIO(source):
        size = position - start
        opens = line.startswith(("def ", "class ", "@", "async def ")) and not previous.startswith("@")
        after_blank = bool(line.strip()) and not previous.strip()
        if (opens and size >= _SMALL) or (after_blank and size >= _MIDDLE) or size >= _LARGE:
            passages.append((start, source[start:position]))
            start = position
        position += len(line)
        previous = line
    passages.append((start, source[start:]))
    return [(first, text) for first, text in passages if text.strip()]


def source_files(root: Path) -> list[Path]:
    """Return the files of the corpus under a standard library folder."""
    files: list[Path] = []
    for folder, inner, names in os.walk(root):
        generated = _GENERATED if Path(folder) == root else set()
        inner[:] = [name for name in inner if name not in _OUTSIDE | generated and not name.startswith("config-")]
        files += [Path(folder, name) for name in names if name.endswith(".py") and "_sysconfigdata" not in name]
    return sorted(files)


def read_source(path: Path) -> str | None:
    """Return the text of a file with its line ends made equal, or None where it cannot be decoded."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):
        logger.info("%s: not text in its declared encoding; left out", path)
        return None


def read_chunks(root: Path, files: Iterable[Path]) -> list[Chunk]:
    """Return the distinct chunks of some files in the order of their hashes; of equal ones the first by path stays."""
    chunks: dict[bytes, Chunk] = {}
    for path in files:
        name = path.relative_to(root).as_posix()
        for start, text in cut(read_source(path) or ""):
            chunk = Chunk(digest=hashlib.sha256(text.encode()).digest(), path=name, start=start, text=text)
            known = chunks.setdefault(chunk.digest, chunk)
            if (name, start) < (known.path, known.start):
                chunks[chunk.digest] = chunk
    return [chunks[digest] for digest in sorted(chunks)]


@lru_cache(maxsize=4)
def library_chunks(root: Path) -> tuple[Chunk, ...]:
    """Return all chunks of a standard library folder (about 10,000), read once per process.

    Raises:
        InputsError: the folder holds no Python files.
    """
    chunks = read_chunks(root, source_files(root))
    if not chunks:
        raise InputsError(f"{root}: no Python source files; a standard library folder holds several hundred")
    return tuple(chunks)


def sides(split: str) -> tuple[str, ...]:
    """Return the sides that a split names: one of `SPLITS`, or several joined by "+".

    Raises:
        ConfigError: an unknown side.
    """
    names = tuple(split.split("+"))
    for name in names:
        if name not in SPLITS:
            raise ConfigError(f"split {split!r}: no side {name!r}.{nearest(name, SPLITS)}")
    return names


def write_seen(chunks: Iterable[Chunk], folder: Path) -> None:
    """Write the hashes of a subject's training chunks into its folder."""
    Path(folder, SEEN_FILE).write_bytes(b"".join(sorted(chunk.digest[:8] for chunk in chunks)))


def seen_share(chunks: Iterable[Chunk], folder: Path) -> float:
    """Return the share of characters, in [0, 1], that lie in chunks the subject in `folder` was trained on.

    Raises:
        InputsError: the folder has no list of chunks, or nothing was given.
    """
    path = Path(folder, SEEN_FILE)
    if not path.is_file():
        raise InputsError(f"{path}: missing; only subjects trained on the standard library have it")
    data = path.read_bytes()
    seen = {data[i : i + 8] for i in range(0, len(data), 8)}
    sizes = [(len(chunk.text), chunk.digest[:8] in seen) for chunk in chunks]
    if not sizes:
        raise InputsError("seen_share: no chunks were given")
    return sum(size for size, known in sizes if known) / sum(size for size, _ in sizes)
