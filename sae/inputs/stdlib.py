"""The Python standard library as packed windows of tokens with exact labels."""

import hashlib
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Int, Int16

from sae.errors import ConfigError, InputsError
from sae.inputs import python_labels
from sae.inputs.stdlib_chunks import library_chunks, read_source, seen_share, sides
from sae.tensors import Batch, Kind

_CHUNKS_AT_ONCE = 256


class FastTokenizer(Protocol):
    """What is used of a Hugging Face fast tokenizer; subjects hand theirs in."""

    bos_token_id: Any
    eos_token_id: Any

    def __call__(
        self, text: list[str], *, add_special_tokens: bool, return_offsets_mapping: bool, verbose: bool
    ) -> Mapping[str, Any]:
        """Return `input_ids` and `offset_mapping` (character spans) of every text."""
        ...


@cache
def file_labels(root: Path, path: str) -> python_labels.FileLabels | None:
    """Return the labels of one file of the library, made once per process (about 10 bytes a character)."""
    return python_labels.label_file(read_source(root / path) or "", path)


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Where consecutive tokens of a window come from: characters [start, stop) of a file, or a boundary (no path)."""

    path: str
    start: int
    stop: int
    n_tokens: int


class StdlibText:
    """Packed windows over one split: the BOS token, then tokens of chunks, each chunk ended by the EOS token.

    Windows have no padding. They are in the order of the chunks' hashes, and text is tokenized only as far as windows
    are asked for.

    Args:
        split: a side of `SPLITS`, or several joined by "+".
        tokenizer: a fast tokenizer with BOS and EOS; its own special tokens are not added.
        n_examples: at most this many windows; all of them when None.
        context: tokens per window, BOS included.
        root: the standard library folder; that of the running Python when None.

    Raises:
        ConfigError: an unknown split, a context below 2, or a tokenizer without BOS and EOS.
    """

    label_names: Mapping[str, Sequence[str]] = python_labels.LABELS
    bookkeeping = ()
    classes: None = None

    def __init__(
        self,
        split: str,
        tokenizer: FastTokenizer,
        *,
        n_examples: int | None = None,
        context: int = 128,
        root: Path | None = None,
    ):
        if context < 2:
            raise ConfigError(f"context={context}: a window holds BOS and at least one token")
        if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
            raise ConfigError("the tokenizer has no BOS or no EOS token; packed windows need both")
        wanted = sides(split)
        self.split = split
        self.context = context
        self.root = Path(sysconfig.get_path("stdlib")) if root is None else Path(root)
        self.chunks = tuple(chunk for chunk in library_chunks(self.root) if chunk.side in wanted)
        self._tokenizer = tokenizer
        self._limit = n_examples
        self._pieces: list[Int[np.ndarray, "4 token"]] = []
        self._n_read = 0
        self._n_tokens = 0

    def __len__(self) -> int:
        """Return the number of windows; tokenizes as much of the split as that takes."""
        available = self._read(self._limit) // (self.context - 1)
        return available if self._limit is None else min(available, self._limit)

    def batch(self, start: int, stop: int) -> Batch:
        """Return windows [start, stop).

        Raises:
            InputsError: windows beyond the last one.
        """
        tokens = torch.from_numpy(self._windows(start, stop, row=0))
        tokens[:, 0] = self._tokenizer.bos_token_id
        kind = torch.full(tokens.shape, Kind.TOKEN, dtype=torch.uint8)
        kind[torch.from_numpy(self._windows(start, stop, row=1)) < 0] = Kind.SPECIAL
        kind[:, 0] = Kind.BOS
        return Batch(first_example=start, tokens=tokens, attended=torch.ones_like(tokens, dtype=torch.bool), kind=kind)

    def labels(self, start: int, stop: int) -> dict[str, Int16[np.ndarray, "example pos"]]:
        """Return the class of every token of windows [start, stop) in each family of `label_names`.

        -1 where a family says nothing: BOS, EOS, files that this Python cannot parse (`unlabelled_files`), and more.
        """
        chunk, begin, end = (self._windows(start, stop, row=row).ravel() for row in (1, 2, 3))
        labels = {family: np.full(len(chunk), -1, dtype=np.int16) for family in python_labels.LABELS}
        for run in _runs(chunk):
            known = file_labels(self.root, self.chunks[chunk[run[0]]].path) if chunk[run[0]] >= 0 else None
            for family, codes in known.of_tokens(begin[run], end[run]).items() if known else ():
                labels[family][run] = codes
        return {family: codes.reshape(stop - start, self.context) for family, codes in labels.items()}

    def sources(self, index: int) -> tuple[Passage, ...]:
        """Return where the tokens of a window come from, in order."""
        chunk, begin, end = (self._windows(index, index + 1, row=row)[0] for row in (1, 2, 3))
        runs = _runs(chunk)
        paths = [self.chunks[chunk[run[0]]].path if chunk[run[0]] >= 0 else "" for run in runs]
        return tuple(
            Passage(path=path, start=int(begin[run[0]]), stop=int(end[run[-1]]), n_tokens=len(run))
            for path, run in zip(paths, runs, strict=True)
        )

    def unlabelled_files(self) -> list[str]:
        """Return the files of this split that cannot be labelled; labels all files that were not yet."""
        paths = sorted({chunk.path for chunk in self.chunks})
        return [path for path in paths if file_labels(self.root, path) is None]

    def seen_share(self, folder: Path) -> float:
        """Return the share of the text read so far that the subject in `folder` was trained on, in [0, 1]."""
        return seen_share(self.chunks[: self._n_read] or self.chunks, folder)

    def describe(self) -> dict[str, Any]:
        """Return what a manifest records, as plain JSON."""
        return {
            "kind": "stdlib",
            "split": self.split,
            "context": self.context,
            "n_examples": len(self),
            "n_chunks": self._n_read,
            "python": ".".join(map(str, sys.version_info[:3])),
        }

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of every token of every window, and of how they were cut."""
        digest = hashlib.sha256(f"{self.split} {self.context} {self._tokenizer.bos_token_id}".encode())
        digest.update(self._windows(0, len(self), row=0).tobytes())
        return digest.hexdigest()

    def _windows(self, start: int, stop: int, *, row: int) -> Int[np.ndarray, "example pos"]:
        """Return one row of the token table cut into windows, -1 in front of each."""
        if not 0 <= start <= stop or stop > len(self):
            raise InputsError(f"windows [{start}, {stop}) of split {self.split!r}: it has {len(self)}")
        width = self.context - 1
        body = self._table()[row, start * width : stop * width].reshape(stop - start, width)
        return np.pad(body, ((0, 0), (1, 0)), constant_values=-1)

    def _table(self) -> Int[np.ndarray, "4 token"]:
        """Return token, chunk, first and last character of all tokens read so far; chunk -1 at boundaries."""
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces, axis=1)]
        return self._pieces[0]

    def _read(self, n_windows: int | None) -> int:
        """Tokenize chunks until they fill `n_windows` (all when None); returns the number of tokens read."""
        while self._n_read < len(self.chunks):
            if n_windows is not None and self._n_tokens >= n_windows * (self.context - 1):
                break
            chosen = range(self._n_read, min(self._n_read + _CHUNKS_AT_ONCE, len(self.chunks)))
            encoded = self._tokenizer(
                [self.chunks[index].text for index in chosen],
                add_special_tokens=False,
                return_offsets_mapping=True,
                verbose=False,  # chunks longer than the subject's context are meant
            )
            for index, ids, spans in zip(chosen, encoded["input_ids"], encoded["offset_mapping"], strict=True):
                piece = np.full((4, len(ids) + 1), -1)
                piece[0] = [*ids, self._tokenizer.eos_token_id]
                piece[1, :-1] = index
                piece[2:, :-1] = np.array(spans, dtype=int).reshape(-1, 2).T + self.chunks[index].start
                self._pieces.append(piece)
                self._n_tokens += piece.shape[1]
            self._n_read = chosen.stop
        return self._n_tokens


def _runs(chunk: Int[np.ndarray, " token"]) -> list[Int[np.ndarray, " run"]]:
    """Return the positions of consecutive tokens of one chunk, run by run."""
    positions = np.arange(len(chunk))
    return np.split(positions, np.flatnonzero(np.diff(chunk)) + 1) if len(chunk) else []
