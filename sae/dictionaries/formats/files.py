"""Reading the files of other libraries without running anything that is in them."""

import json
import pickle
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae.errors import DictionaryError, nearest

PICKLE_SUFFIXES = (".pt", ".pth")


class Inert:
    """Stands in for a class of another library while its pickle is read: it keeps the attributes and does nothing."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping that a JSON file holds.

    Raises:
        DictionaryError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise DictionaryError(f"{path}: no such file.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DictionaryError(f"{path}: not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise DictionaryError(f"{path}: expected a JSON object, found {type(content).__name__}.")
    return content


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        DictionaryError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise DictionaryError(f"{path}: no such file.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DictionaryError(f"{path}: not a readable safetensors file: {error}.") from error


def read_npz(path: Path) -> dict[str, Tensor]:
    """Return the arrays of a NumPy archive as tensors; arrays of Python objects are refused.

    Raises:
        DictionaryError: the file is damaged, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except (OSError, ValueError, pickle.UnpicklingError) as error:
        raise DictionaryError(f"{path}: not a readable archive of plain arrays: {error}.") from error


def read_pickle(path: Path, inert: tuple[str, ...] = ()) -> Any:
    """Return what a file of `torch.save` holds, if that is tensors and plain values; nothing else is ever unpickled.

    Args:
        path: the file.
        inert: full names of classes whose instances may be in it; they are read as `Inert`.

    Raises:
        DictionaryError: the file is damaged, or reading it would run code of other classes.
    """
    try:
        with torch.serialization.safe_globals([(Inert, name) for name in inert]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        needs = found[1] if found else "unknown objects"
        raise DictionaryError(
            f"{path}: this pickle holds more than tensors and plain values ({needs}), "
            "and opening it could run any code; it is refused. Open it where you trust it, and save the tensors alone."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise DictionaryError(f"{path}: not a readable file of torch.save: {error}.") from error


def strings_in_pickle(path: Path) -> frozenset[str]:
    """Return every string and class name in a file of `torch.save`, read without unpickling; none if it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            operations = pickletools.genops(archive.read(name))
            return frozenset(argument for _, argument, _ in operations if isinstance(argument, str))
    except (zipfile.BadZipFile, OSError, ValueError):
        return frozenset()


def pickle_at(path: Path, ignored: tuple[str, ...] = ()) -> Path | None:
    """Return the pickle that a path means: the file itself, or the only one in a folder; None if there is not one."""
    if path.is_file():
        return path if path.suffix in PICKLE_SUFFIXES else None
    if not path.is_dir():
        return None
    found = [file for file in path.iterdir() if file.suffix in PICKLE_SUFFIXES and file.name not in ignored]
    return found[0] if len(found) == 1 else None


def take(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    """Return a tensor by name.

    Raises:
        DictionaryError: there is none of that name.
    """
    if name not in tensors:
        raise DictionaryError(f"{path}: tensor {name} is missing.{nearest(name, sorted(tensors))}")
    return tensors[name]


def setting(config: Mapping[str, Any], name: str, path: Path) -> Any:
    """Return a setting by name.

    Raises:
        DictionaryError: the config does not have it.
    """
    if config.get(name) is None:
        raise DictionaryError(f"{path}: the config names no {name}.{nearest(name, sorted(config))}")
    return config[name]
