"""A tokenized corpus: all token ids end to end, in memory or in a folder mapped into memory."""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int

_DTYPES = {"ids": np.int32, "roles": np.int8, "ends": np.int64}


@dataclass(frozen=True)
class Encoded:
    """Token ids of a document or of a part of one, and for conversations the role of each token."""

    ids: list[int]
    roles: list[int] | None = None
    ends: bool = True


@dataclass(frozen=True)
class Corpus:
    """Document i is ids[ends[i - 1] : ends[i]]; `roles` is empty for plain text; `digest` is a sha256 of it all."""

    ids: Int[np.ndarray, " token"]
    roles: Int[np.ndarray, " token_with_role"]
    ends: Int[np.ndarray, " document"]
    digest: str


def in_memory(encoded: Iterator[Encoded]) -> Corpus:
    """Collect a small corpus."""
    streams = {name: io.BytesIO() for name in _DTYPES}
    digest = _write(encoded, streams)
    return _corpus({name: stream.getvalue() for name, stream in streams.items()}, digest)


def in_folder(folder: Path, encode: Callable[[], Iterator[Encoded]]) -> Corpus:
    """Map the corpus that lies in a folder, which is written first if it is not there."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as made:
            unfinished = Path(made)
            with ExitStack() as stack:
                streams = {name: stack.enter_context((unfinished / name).open("wb")) for name in _DTYPES}
                digest = _write(encode(), streams)
            (unfinished / "digest").write_text(digest)
            if not folder.is_dir():  # Another process may have been faster.
                unfinished.rename(folder)
    files = {name: folder / name for name in _DTYPES}
    # An empty file cannot be mapped.
    buffers = {name: np.memmap(file, mode="r") for name, file in files.items() if file.stat().st_size}
    return _corpus(buffers, (folder / "digest").read_text())


def _write(encoded: Iterator[Encoded], streams: Mapping[str, BinaryIO]) -> str:
    digest, n_tokens = hashlib.sha256(), 0
    for part in encoded:
        n_tokens += len(part.ids)
        values = {"ids": part.ids, "roles": part.roles or [], "ends": [n_tokens] if part.ends else []}
        for name, dtype in _DTYPES.items():
            data = np.array(values[name], dtype=dtype).tobytes()
            streams[name].write(data)
            digest.update(data)
    return digest.hexdigest()


def _corpus(buffers: Mapping[str, Any], digest: str) -> Corpus:
    arrays = {
        name: np.frombuffer(buffers[name], dtype=dtype) if len(buffers.get(name, b"")) else np.empty(0, dtype)
        for name, dtype in _DTYPES.items()
    }
    return Corpus(**arrays, digest=digest)
