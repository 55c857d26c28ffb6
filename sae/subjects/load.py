"""From a subject's id to the subject."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from sae import builtin
from sae.errors import SubjectError, nearest
from sae.subjects.base import Subject

if TYPE_CHECKING:
    import torch

    from sae.subjects.language import LanguageSubject
    from sae.subjects.vision import ClipSubject

PREFIXES = ("builtin:", "language:", "clip:")
"""Each of them may stand behind `untrained:`."""


def load(id: str, device: "str | torch.device" = "cpu", dtype: "torch.dtype | str | None" = None) -> Subject:
    """Load a frozen model.

    Args:
        id: `builtin:stdlib-1l`, `language:<hub name or folder>`, `clip:<architecture>/<tag>`, `clip:hf-hub:<name>` or
            `clip:<folder>`; or `untrained:` and one of these, for the same architecture, tokenizer and preprocessing
            with weights drawn anew (see `untrained.py`).
        device: where it runs, such as "cpu" or "cuda:0".
        dtype: of weights and activations; float32 on a CPU if not given.

    Raises:
        SubjectError: an unknown prefix, a missing folder, a model that cannot be loaded, or a missing optional package.
        ConfigError: nothing of that name is built in.
    """
    untrained, trained_id = id.startswith(builtin.UNTRAINED), id.removeprefix(builtin.UNTRAINED)
    prefix, _, name = trained_id.partition(":")
    if f"{prefix}:" not in PREFIXES or not name:
        raise SubjectError(f"subject {id!r}: an id starts with what kind of model it is.{nearest(id, PREFIXES)}")
    kind, source = prefix, name
    if prefix == "builtin":
        source = builtin.subject_folder(trained_id)
        kind, trained_id = _kind_of(source), builtin.canonical(trained_id)
    elif Path(name).expanduser().is_dir():
        source = Path(name).expanduser().resolve()
        trained_id = f"{prefix}:{source}"
    elif name.startswith((".", "/", "~")):
        folder = Path(name).expanduser()
        siblings = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        raise SubjectError(f"subject {id!r}: no such folder.{nearest(folder.name, siblings)}")
    canonical = builtin.UNTRAINED + trained_id if untrained else trained_id
    return _type(kind, canonical).from_id(canonical, source, device, dtype, untrained)


def _type(kind: str, id: str) -> "type[LanguageSubject | ClipSubject]":
    """Return the class, which imports the package that the subject needs."""
    if kind == "language":
        _need(id, "transformer_lens", "language")
        from sae.subjects.language import LanguageSubject

        return LanguageSubject
    _need(id, "open_clip", "vision")
    from sae.subjects.vision import ClipSubject

    return ClipSubject


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
