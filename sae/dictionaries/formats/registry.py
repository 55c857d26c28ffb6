"""The formats of other libraries: which one a folder has, reading it, writing it.

Adding one = one module with NAME, FILES, HINTS, detect and read (write where we can), and its name in `MODULES`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from sae.dictionaries.base import Dictionary
from sae.dictionaries.formats import (
    dictionary_learning,
    gemma_scope,
    llamascopium,
    openai,
    overcomplete,
    saelens,
    sparsify,
    vit_prisma,
)
from sae.dictionaries.formats.parts import Parts, assemble
from sae.errors import DictionaryError, nearest


class Format(Protocol):
    """What a module of this package offers."""

    @property
    def NAME(self) -> str:
        """Name of the library."""
        ...

    @property
    def FILES(self) -> tuple[str, ...]:
        """Names of what it writes, as patterns."""
        ...

    @property
    def HINTS(self) -> tuple[str, ...]:
        """What its reader can be told."""
        ...

    def detect(self, path: Path) -> bool:
        """Say whether a folder, or a file, is in this format."""
        ...

    def read(self, path: Path, hints: dict[str, Any]) -> Parts:
        """Return what it holds."""
        ...


MODULES: tuple[Format, ...] = (
    saelens,
    sparsify,
    dictionary_learning,
    gemma_scope,
    llamascopium,
    openai,
    vit_prisma,
    overcomplete,
)
FORMATS = {module.NAME: module for module in MODULES}
WRITERS: dict[str, Callable[[Dictionary, Path], None]] = {"saelens": saelens.write, "sparsify": sparsify.write}


def detect(path: Path) -> str | None:
    """Return the name of the format that a folder or file has, None if it is none of the known ones.

    Raises:
        DictionaryError: it could be several.
    """
    found = [name for name, form in FORMATS.items() if form.detect(path)]
    if len(found) > 1:
        raise DictionaryError(f"{path}: holds the files of several libraries: {', '.join(found)}.")
    return found[0] if found else None


def read(path: Path, hints: dict[str, Any]) -> Dictionary:
    """Return the dictionary that a folder or file of another library holds.

    Args:
        path: the folder, or for libraries that save one file, that file.
        hints: what the file itself does not say; which are possible depends on the format.

    Raises:
        DictionaryError: the format is unknown or damaged, a hint is missing or unknown, or the dictionary is of a sort
            that none of ours gives the codes of.
    """
    name = detect(path)
    if name is None:
        raise DictionaryError(f"{path}: {_contents(path)} No dictionary that is known: {_known()}.")
    form = FORMATS[name]
    for hint in hints.keys() - set(form.HINTS):
        raise DictionaryError(f"{path}: {name} takes no {hint!r}.{nearest(hint, form.HINTS)}")
    parts = form.read(path, hints)
    if "scale" in hints:
        parts = parts.scaled(float(hints["scale"]))
    try:
        dictionary = assemble(parts)
    except DictionaryError as error:
        raise DictionaryError(f"{path}, written by {name}: {error}") from error
    said = {key: value for key, value in parts.provenance.items() if value is not None}
    dictionary.provenance = json.loads(
        json.dumps({"imported": {"format": name, "source": str(path)}, **said}, default=str)
    )
    return dictionary


def patterns() -> list[str]:
    """Return the names of files that any format consists of, as patterns."""
    return sorted({pattern for form in FORMATS.values() for pattern in form.FILES})


def _contents(path: Path) -> str:
    if path.is_file():
        return "a file."
    if not path.is_dir():
        return "no such folder."
    names = sorted(child.name + "/" * child.is_dir() for child in path.iterdir())
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"a folder with {listed}." if names else "an empty folder."


def _known() -> str:
    ours = "sae (dictionary.json, dictionary.safetensors)"
    return "; ".join([ours, *(f"{name} ({', '.join(form.FILES)})" for name, form in FORMATS.items())])
