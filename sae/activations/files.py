"""The files of a store: tensors written piece by piece and read by memory mapping, hashes, locks.

Tensors lie in the safetensors format (https://github.com/huggingface/safetensors, "Format"): eight bytes with the
header's length, a JSON header, then the tensors one after another. It is written here piece by piece, because a shard
is gathered as many small tensors and would otherwise be copied whole before it could be saved.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.durable import Bytes
from sae.errors import StoreError

LOCK = ".lock"

_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}
_DTYPES = {code: dtype for dtype, code in _CODES.items()}
_HASH_CHUNK_BYTES = 1 << 22


def tensor_pieces(columns: Mapping[str, Sequence[Tensor]]) -> Iterator[Bytes]:
    """Yield the bytes of a safetensors file; every column is given in pieces, to be joined along the first axis.

    Columns are laid out by falling element size, then by name, so every tensor is aligned to its element.
    """
    order = sorted(columns, key=lambda name: (-columns[name][0].element_size(), name))
    header, offset = {}, 0
    for name in order:
        pieces = columns[name]
        shape = [sum(len(piece) for piece in pieces), *pieces[0].shape[1:]]
        end = offset + sum(piece.numel() * piece.element_size() for piece in pieces)
        header[name] = {"dtype": _CODES[pieces[0].dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        for piece in columns[name]:
            flat = piece.contiguous().flatten()
            # A single element may have stride 0 and count as contiguous, and yet have no view as bytes.
            yield flat.as_strided(flat.shape, (1,)).view(torch.uint8).numpy().data


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Read the header of a safetensors file; returns it and the offset of the first tensor.

    Raises:
        StoreError: the file is missing, cut short or not safetensors.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            header = json.loads(file.read(length)) if length < size else {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as safetensors: {error}.") from error
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if not ends or 8 + length + max(ends) != size:
        raise StoreError(f"{path}: cut short or damaged; its {size:,} bytes are not what its header announces.")
    return header, 8 + length


def map_tensors(path: Path) -> dict[str, Tensor]:
    """Map a safetensors file into memory; rows are read from the disk when they are touched.

    The tensors are private copies-on-write: writing to them does not change the file.
    """
    header, start = read_header(path)
    data = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            tensors[name] = data[start + first : start + end].view(_DTYPES[entry["dtype"]]).view(entry["shape"])
    return tensors


def hash_file(path: Path) -> str:
    """Return the sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes; a lock whose process has died holds nothing.

    Raises:
        StoreError: another process holds it, or the folder cannot be made.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written to: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{folder}: another process is harvesting into this store; wait for it.") from error
        except OSError as error:
            raise StoreError(f"{path}: this file system cannot lock files: {error.strerror}.") from error
        yield
