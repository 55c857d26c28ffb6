"""saprmarks/dictionary_learning: `ae.pt`, a pickled state dict, beside `config.json`.

While a run goes on, `ae.pt` holds the whole trainer instead (`ae`, `optimizer`, `norm_factor`), with biases still in
the units of the scaled inputs; `checkpoints/ae_STEP.pt` are plain state dicts below the config. The classes differ in
the names of their tensors, except TopK and BatchTopK, which only the config tells apart.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sae.dictionaries.formats.files import read_json, read_pickle, setting, take
from sae.dictionaries.formats.parts import Parts
from sae.errors import DictionaryError, nearest

NAME = "dictionary_learning"
FILES = ("ae.pt", "config.json")
HINTS = ("kind",)

CLASSES = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "GatedAutoEncoder": "gated",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batch_topk",
    "JumpReluAutoEncoder": "jumprelu",
    "MatryoshkaBatchTopKSAE": "matryoshka",
}
EXTRA = {
    "gated": {"r_mag": "r_mag", "b_mag": "mag_bias"},
    **{kind: {"threshold": "threshold"} for kind in ("batch_topk", "jumprelu", "matryoshka")},
}
"""Further tensors of our kinds, and their names there."""
FEATURE_UNITS = ("b_mag", "threshold")
"""Tensors in the units of the codes, which grow with the inputs."""


def detect(path: Path) -> bool:
    if path.is_file():
        return path.suffix == ".pt" and path.name.startswith("ae")
    return (path / "ae.pt").is_file()


def read(path: Path, hints: dict[str, Any]) -> Parts:
    """Return what a folder of dictionary_learning, or one of its `.pt` files, holds.

    Raises:
        DictionaryError: which class it is cannot be told.
    """
    file = path if path.is_file() else path / "ae.pt"
    state, trainer = read_pickle(file), _trainer_config(file)
    factor = 1.0
    if "ae" in state:
        factor, trainer = state.get("norm_factor") or 1.0, state.get("config") or trainer
        state = state["ae"]
    kind = hints.get("kind") or _kind(state, trainer.get("dict_class"), file)
    transposed = "encoder.weight" in state
    parts = Parts(
        kind=kind,
        W_enc=take(state, "encoder.weight", file).T if transposed else take(state, "W_enc", file),
        W_dec=take(state, "decoder.weight", file).T if transposed else take(state, "W_dec", file),
        b_enc=take(state, "gate_bias", file) if kind == "gated" else _first(state, ("encoder.bias", "b_enc")),
        b_dec=_first(state, ("bias", "b_dec", "decoder_bias", "decoder.bias")),
        subtracts_b_dec=kind != "jumprelu" and "decoder.bias" not in state,
        settings=_settings(kind, state, trainer, file),
        tensors={ours: take(state, theirs, file) for ours, theirs in EXTRA.get(kind, {}).items()},
        provenance={"hookpoint": _hookpoint(trainer), "dictionary_learning": dict(trainer)},
    )
    return parts if factor == 1 else _with_scaled_biases(parts, factor)


def _trainer_config(file: Path) -> dict[str, Any]:
    """Return the config beside the file or, for a checkpoint, above it; empty if there is none."""
    for folder in (file.parent, file.parent.parent):
        if (folder / "config.json").is_file():
            return read_json(folder / "config.json").get("trainer", {})
    return {}


def _kind(state: Mapping[str, Tensor], dict_class: str | None, file: Path) -> str:
    if dict_class is not None:
        if dict_class not in CLASSES:
            raise DictionaryError(f"{file}: dict_class {dict_class!r}.{nearest(dict_class, CLASSES)}")
        return CLASSES[dict_class]
    if "group_sizes" in state:
        return "matryoshka"
    if "gate_bias" in state:
        return "gated"
    if "k" in state:
        raise DictionaryError(
            f"{file}: a TopK and a BatchTopK have the same tensors, and no config.json says which this is. Give "
            'kind="topk" or kind="batch_topk".'
        )
    return "jumprelu" if "threshold" in state else "relu"


def _settings(kind: str, state: Mapping[str, Tensor], trainer: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return k, which early files have in the config only, and the sizes of nested dictionaries."""
    if kind not in ("topk", "batch_topk", "matryoshka"):
        return {}
    settings: dict[str, Any] = {"k": int(state["k"] if "k" in state else setting(trainer, "k", file))}
    if kind == "matryoshka":
        ends = take(state, "group_sizes", file).cumsum(0).double()
        settings["prefixes"] = (ends / ends[-1]).tolist()
    return settings


def _with_scaled_biases(parts: Parts, factor: float) -> Parts:
    """Bring a dictionary that was trained on x / factor to the units of x, as the library does on its last save."""
    scaled = {name: value * factor if name in FEATURE_UNITS else value for name, value in parts.tensors.items()}
    b_enc, b_dec = parts.b_enc, parts.b_dec
    return replace(
        parts,
        b_enc=None if b_enc is None else b_enc * factor,
        b_dec=None if b_dec is None else b_dec * factor,
        tensors=scaled,
    )


def _first(state: Mapping[str, Tensor], names: tuple[str, ...]) -> Tensor | None:
    return next((state[name] for name in names if name in state), None)


def _hookpoint(trainer: Mapping[str, Any]) -> str | None:
    """Return our name of a residual stream that the library's demonstration calls resid_post_layer_N."""
    found = re.fullmatch(r"resid_post_layer_(\d+)", str(trainer.get("submodule_name")))
    return f"blocks.{found[1]}.hook_resid_post" if found else None
