"""Text from elsewhere as token windows.

The corpus is tokenized once, block by block, into one long array of token ids (int32, four bytes a token; a file mapped
into memory where it is large), and examples are cut from that, so any range of them is there at once.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae.config import encode
from sae.errors import InputsError
from sae.inputs.configs import TextInputsConfig
from sae.inputs.corpus import Corpus, Encoded, in_folder, in_memory
from sae.inputs.documents import Piece, content_hash, find_files, read_documents
from sae.tensors import Batch, Kind

NO_ROLE = -1
"""Role of tokens that nobody says: the template's, special tokens, padding."""

_VERSION = 1
_BLOCK = 64
_IN_MEMORY_BYTES = 64 << 20

logger = logging.getLogger(__name__)


class TextInputs:
    """Documents as packed windows without padding, or one per example with an attention mask.

    Packed windows are `context` tokens: BOS if wanted, then the corpus, with EOS after each document where the
    tokenizer has one. Tokens left over at the end are dropped. BOS is marked `Kind.BOS`, other special tokens
    `Kind.SPECIAL`.

    Args:
        config: where the documents are and how they are cut.
        tokenizer: a Hugging Face tokenizer.

    Raises:
        InputsError: the documents cannot be read, or hold less than one example.
    """

    def __init__(self, config: TextInputsConfig, tokenizer: Any) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self._bos = self._bos_id()
        self._corpus = self._load()
        available = len(self._corpus.ids) // self._width if config.packing == "packed" else len(self._corpus.ends)
        self._n_examples = available if config.n_examples is None else min(available, config.n_examples)
        if not self._n_examples:
            raise InputsError(f"{self._name}: {len(self._corpus.ids)} tokens; one example needs {self._width}.")
        if config.n_examples is not None and available < config.n_examples:
            logger.warning("%s: holds %d examples of the %d asked for", self._name, available, config.n_examples)
        self.fingerprint = hashlib.sha256(f"{self._key} {self._corpus.digest}".encode()).hexdigest()

    def __len__(self) -> int:
        """Return the number of examples."""
        return self._n_examples

    def batch(self, start: int, stop: int) -> Batch:
        """Return examples [start, stop); unpacked ones are padded on the right to the longest of them.

        Raises:
            InputsError: examples beyond the last one.
        """
        tokens = self._examples(self._corpus.ids, start, stop, self._bos or 0, self._pad)
        attended = self._examples(np.broadcast_to(np.True_, len(self._corpus.ids)), start, stop, True, False)
        kind = self._kind_of_id[tokens]
        kind[:, 0] = np.where(tokens[:, 0] == self.tokenizer.bos_token_id, Kind.BOS, kind[:, 0])
        return Batch(
            first_example=start,
            tokens=torch.from_numpy(tokens.astype(np.int64)),
            attended=torch.from_numpy(attended.copy()),
            kind=torch.from_numpy(self._mark(kind, start, stop)),
        )

    def describe(self) -> dict[str, Any]:
        """Return the settings and the size of the corpus."""
        counts = {"n_examples": len(self), "n_tokens": len(self._corpus.ids), "n_documents": len(self._corpus.ends)}
        return {"kind": self.config.kind, **encode(self.config), "cache": None, **counts, "bos_token_id": self._bos}

    def _mark(self, kind: np.ndarray, start: int, stop: int) -> np.ndarray:
        return kind

    def _encode(self, pieces: tuple[Piece, ...]) -> Iterator[Encoded]:
        """Turn pieces of documents into token ids."""
        for piece in pieces:
            if not isinstance(piece.content, str):
                raise InputsError(f"{piece.where}: expected text, got {type(piece.content).__name__}.")
        packed = self.config.packing == "packed"
        options = {} if packed else {"truncation": True, "max_length": self.config.context}
        texts = [piece.content for piece in pieces]
        encoded = self.tokenizer(texts, add_special_tokens=not packed, verbose=False, **options)["input_ids"]
        eos = self.tokenizer.eos_token_id
        for piece, ids in zip(pieces, encoded, strict=True):
            if packed and piece.ends and eos is not None:
                ids = [*ids, eos]
            elif not packed and self._bos is not None and ids[:1] != [self._bos]:
                ids = [self._bos, *ids][: self.config.context]
            elif not packed and self.config.bos is False and ids[:1] == [self.tokenizer.bos_token_id]:
                ids = ids[1:]
            yield Encoded(ids, ends=piece.ends)

    def _bos_id(self) -> int | None:
        bos = self.tokenizer.bos_token_id
        if self.config.bos and bos is None:
            raise InputsError(f"{self._name}: bos is true, but the tokenizer has no BOS token.")
        templated = self.config.format == "chat" and self.config.bos is None
        return None if templated or self.config.bos is False else bos

    @property
    def _name(self) -> str:
        return str(self.config.path or self.config.hub)

    @property
    def _width(self) -> int:
        """Tokens of the corpus in one packed window."""
        return self.config.context - (self._bos is not None) if self.config.packing == "packed" else 1

    @property
    def _pad(self) -> int:
        return next((i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id) if i is not None), 0)

    @cached_property
    def _kind_of_id(self) -> np.ndarray:
        kinds = np.full(max(len(self.tokenizer), 1), Kind.TOKEN, dtype=np.uint8)
        kinds[[i for i in self.tokenizer.all_special_ids if i < len(kinds)]] = Kind.SPECIAL
        if self.tokenizer.bos_token_id not in (None, self.tokenizer.eos_token_id):
            kinds[self.tokenizer.bos_token_id] = Kind.BOS
        return kinds

    def _examples(self, values: np.ndarray, start: int, stop: int, first: Any, pad: Any) -> np.ndarray:
        """Cut per-token values into examples, `first` standing for an added BOS and `pad` behind the end."""
        if not 0 <= start <= stop <= len(self):
            raise InputsError(f"{self._name}: examples [{start}, {stop}) of {len(self)}.")
        if self.config.packing == "packed":
            body = values[start * self._width : stop * self._width].reshape(stop - start, self._width)
            return np.pad(body, ((0, 0), (self.config.context - self._width, 0)), constant_values=first)
        before = self._corpus.ends[start - 1] if start else 0
        edges = np.array([before, *self._corpus.ends[start:stop]])
        longest = int(np.diff(edges).max(initial=0))
        rows = np.full((stop - start, longest), pad, dtype=values.dtype)
        for row, (begin, end) in enumerate(pairwise(edges)):
            rows[row, : end - begin] = values[begin:end]
        return rows

    @property
    def _key(self) -> str:
        """Hash of everything but the documents that decides the token ids."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = self.tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
        # How the last call truncated and padded stays behind in a fast tokenizer; it is no part of what it is.
        vocabulary = json.dumps(vocabulary | {"truncation": None, "padding": None}, sort_keys=True)
        special = json.dumps({k: str(v) for k, v in self.tokenizer.special_tokens_map.items()}, sort_keys=True)
        settings = json.dumps(encode(self.config) | {"path": None, "cache": None}, sort_keys=True)
        parts = (_VERSION, settings, vocabulary, special, getattr(self.tokenizer, "chat_template", None))
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _load(self) -> Corpus:
        """Tokenize the corpus, or map what an earlier run has left in the cache."""
        files = find_files(self.config.path) if self.config.path else []
        expected = sum(file.stat().st_size for file in files)
        if self.config.n_examples is not None:
            wanted = 4 * self.config.n_examples * self.config.context
            expected = min(expected or wanted, wanted)
        if self.config.cache is None and expected <= _IN_MEMORY_BYTES:
            return in_memory(self._encoded())
        home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        source = content_hash(files) if files else "hub"
        name = hashlib.sha256(f"{self._key} {source}".encode()).hexdigest()
        return in_folder((self.config.cache or home / "sae-dictionaries" / "tokens") / name, self._encoded)

    def _encoded(self) -> Iterator[Encoded]:
        """Yield the documents' token ids until there are enough for the examples wanted."""
        packed = self.config.packing == "packed"
        missing = float("inf") if self.config.n_examples is None else self.config.n_examples * self._width
        pieces = read_documents(self.config)
        while block := tuple(islice(pieces, _BLOCK)):
            for encoded in self._encode(block):
                if packed or encoded.ids:
                    yield encoded
                missing -= len(encoded.ids) if packed else bool(encoded.ids)
                if missing <= 0:
                    return
