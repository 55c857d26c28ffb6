"""From a subject's id to the subject."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from sae import builtin
from sae.errors import SubjectError, nearest
from sae.subjects.base import Subject

if TYPE_CHECKING:
    import torch

PREFIXES = ("builtin:", "language:", "clip:")


def load(id: str, device: "str | torch.device" = "cpu", dtype: "torch.dtype | str | None" = None) -> Subject:
    """Load a frozen model.

    Args:
        id: `builtin:stdlib-1l`, `language:<hub name or folder>`, `clip:<architecture>/<tag>`, `clip:hf-hub:<name>` or
            `clip:<folder>`.
        device: where it runs, such as "cpu" or "cuda:0".
        dtype: of weights and activations; float32 on a CPU if not given.

    Raises:
        SubjectError: an unknown prefix, a missing folder, a model that cannot be loaded, or a missing optional package.
        ConfigError: nothing of that name is built in.
    """
    prefix, _, name = id.partition(":")
    if f"{prefix}:" not in PREFIXES or not name:
        raise SubjectError(f"subject {id!r}: an id starts with what kind of model it is.{nearest(id, PREFIXES)}")
    if prefix == "builtin":
        folder = builtin.subject_folder(id)
        return _load(_kind_of(folder), builtin.canonical(id), folder, device, dtype)
    folder = Path(name).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        return _load(prefix, f"{prefix}:{folder}", folder, device, dtype)
    if name.startswith((".", "/", "~")):
        siblings = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        raise SubjectError(f"subject {id!r}: no such folder.{nearest(folder.name, siblings)}")
    return _load(prefix, id, name, device, dtype)


def _load(
    kind: str, id: str, source: str | Path, device: "str | torch.device", dtype: "torch.dtype | str | None"
) -> Subject:
    if kind == "language":
        _need(id, "transformer_lens", "language")
        from sae.subjects.language import LanguageSubject

        return LanguageSubject.from_id(id, source, device, dtype)
    _need(id, "open_clip", "vision")
    from sae.subjects.vision import ClipSubject

    return ClipSubject.from_id(id, source, device, dtype)


def _kind_of(folder: Path) -> str:
    """Tell a Hugging Face language model from an open_clip model by the files of its folder."""
    if (folder / "open_clip_config.json").is_file():
        return "clip"
    if (folder / "config.json").is_file():
        return "language"
    raise SubjectError(f"{folder}: neither config.json (a language model) nor open_clip_config.json (a CLIP model).")


def _need(id: str, package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise SubjectError(f"{id}: needs the package {package}: pip install 'sae-dictionaries[{extra}]'.")
