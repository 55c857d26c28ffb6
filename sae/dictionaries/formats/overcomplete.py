"""Overcomplete: the state dict of one of its modules, for it has no format of its own.

A state dict has neither the class nor k in it, so these must be given: load_dictionary("sae.pt", kind="topk", k=32).

    pre   = encoder(x)                  nothing is subtracted, and there is no decoder bias
    D     = rows of `dictionary._weights` at norm 1, or W @ C + Relax (archetypal); times exp(multiplier)
    codes = relu(pre), the top k of it, or what reaches the threshold

Fel, Lubana, Prince, Kowal, Boutin, Papadimitriou, Wang, Wattenberg, Ba, Konkle: Archetypal SAE: Adaptive and Stable
Dictionary Learning for Concept Extraction in Large Vision Models, 2025, arXiv 2502.12892.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.dictionaries.formats.files import pickle_at, read_pickle, strings_in_pickle, take
from sae.dictionaries.formats.parts import Parts
from sae.errors import DictionaryError, nearest

NAME = "overcomplete"
FILES = ("*.pt", "*.pth")
HINTS = ("kind", "k", "threshold")

KINDS = ("relu", "topk", "batch_topk", "jumprelu")
NORM_SLACK = 0.05
"""How far from 1 the norm of a dictionary row may be: one training step after the library last normalised it."""


def detect(path: Path) -> bool:
    strings = strings_in_pickle(file) if (file := pickle_at(path)) else frozenset()
    pickled_module = any(string.startswith("overcomplete.") for string in strings)
    return pickled_module or bool({"dictionary._weights", "dictionary.Relax"} & strings)


def read(path: Path, hints: dict[str, Any]) -> Parts:
    """Return what a file with the state dict of an Overcomplete SAE holds.

    Raises:
        DictionaryError: a module rather than a state dict, an encoder that is not linear, or a hint is missing.
    """
    file = pickle_at(path) or path
    state = read_pickle(file)
    kind = _kind(state, hints, file)
    W_dec = _dictionary(state, file)
    weight, b_enc = _encoder(state, W_dec, file)
    tensors = {}
    if kind == "jumprelu":
        tensors["threshold"] = _just_below(take(state, "thresholds", file).exp())
    if kind == "batch_topk":
        tensors["threshold"] = _just_below(torch.tensor(float(_hint(hints, "threshold", file))))
    return Parts(
        kind=kind,
        W_enc=weight.T,
        W_dec=W_dec,
        b_enc=b_enc,
        settings={"k": _hint(hints, "k", file)} if kind in ("topk", "batch_topk") else {},
        tensors=tensors,
        provenance={"overcomplete": {key: hints[key] for key in HINTS if key in hints}},
    )


def _kind(state: Mapping[str, Tensor], hints: Mapping[str, Any], file: Path) -> str:
    if "Q" in state:
        raise DictionaryError(f"{file}: a quantised SAE; its codes are levels, which no dictionary of ours gives.")
    kind = "jumprelu" if "thresholds" in state else _hint(hints, "kind", file)
    if kind not in KINDS:
        raise DictionaryError(f"{file}: kind {kind!r}.{nearest(str(kind), KINDS)}")
    return kind


def _hint(hints: Mapping[str, Any], name: str, file: Path) -> Any:
    if name not in hints:
        raise DictionaryError(
            f"{file}: Overcomplete does not save the {name} of this SAE; give it: load_dictionary(path, {name}=...)."
            + (f" Kinds: {', '.join(KINDS)}." if name == "kind" else "")
        )
    return hints[name]


def _dictionary(state: Mapping[str, Tensor], file: Path) -> Tensor:
    gain = state.get("dictionary.multiplier", torch.tensor(0.0)).exp()
    if "dictionary.Relax" in state:
        mixing = take(state, "dictionary.W", file).relu()
        mixing = mixing / (mixing.sum(1, keepdim=True) + 1e-8)
        return (mixing @ take(state, "dictionary.C", file) + state["dictionary.Relax"]) * gain
    rows = take(state, "dictionary._weights", file)
    norms = rows.norm(dim=1, keepdim=True)
    if not torch.all((norms - 1).abs() < NORM_SLACK):
        raise DictionaryError(
            f"{file}: rows of the dictionary have norms from {norms.min():.3g} to {norms.max():.3g}. Which of the "
            "library's normalisations applies is not in the file; the default, l2, gives 1. Save after model.eval()."
        )
    return rows / (norms + 1e-8) * gain


def _encoder(state: Mapping[str, Tensor], W_dec: Tensor, file: Path) -> tuple[Tensor, Tensor | None]:
    """Return weight [d_sae d_in] and bias of a linear encoder, which may be tied to the dictionary."""
    parts = {name.removeprefix("encoder.") for name in state if name.startswith("encoder.")}
    if parts == {"final_block.0.weight", "final_block.0.bias"}:
        return state["encoder.final_block.0.weight"], state["encoder.final_block.0.bias"]
    if "weight" in parts and parts <= {"weight", "bias"}:
        return state["encoder.weight"], state.get("encoder.bias")
    if parts <= {"bias", "tied_to._weights", "tied_to.multiplier"}:
        return W_dec, state.get("encoder.bias")
    raise DictionaryError(f"{file}: an encoder of {', '.join(sorted(parts))}; a dictionary of ours has a linear one.")


def _just_below(threshold: Tensor) -> Tensor:
    """Return the next smaller number: the library keeps what reaches its threshold, we what exceeds ours."""
    return torch.nextafter(threshold, torch.tensor(-torch.inf))
