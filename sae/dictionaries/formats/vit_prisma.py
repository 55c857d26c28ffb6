"""ViT-Prisma: one pickle with the weights and, mostly, the config: {"cfg": ..., "state_dict": ...} or a state dict
beside `config.json`.

The config in a pickle is an object of the library's own class. It is read as a bag of attributes, without that class
and without running anything. Weights are laid out as ours; b_dec is subtracted before encoding.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sae.dictionaries.formats.files import pickle_at, read_json, read_pickle, setting, strings_in_pickle, take
from sae.dictionaries.formats.parts import Parts
from sae.errors import DictionaryError

NAME = "vit_prisma"
FILES = ("*.pt", "config.json")
HINTS = ()

CONFIG_CLASSES = (
    "vit_prisma.sae.config.VisionModelSAERunnerConfig",
    "vit_prisma.configs.HookedViTConfig.HookedViTConfig",
)
BESIDE = ("log_feature_sparsity.pt",)
"""Pickles that the library writes into the same folder."""


def detect(path: Path) -> bool:
    file = pickle_at(path, BESIDE)
    if file is None:
        return False
    strings = strings_in_pickle(file)
    if not strings >= {"W_enc", "W_dec", "b_dec"}:
        return False
    beside = file.parent / "config.json"
    return "cfg" in strings or (beside.is_file() and "activation_fn_str" in read_json(beside))


def read(path: Path, hints: dict[str, Any]) -> Parts:
    """Return what a folder or file of ViT-Prisma holds.

    Raises:
        DictionaryError: an architecture or activation that a dictionary of ours cannot have.
    """
    file = pickle_at(path, BESIDE) or path
    content = read_pickle(file, inert=CONFIG_CLASSES)
    tensors = content.get("state_dict", content)
    config = vars(content["cfg"]) if "cfg" in content else read_json(file.parent / "config.json")
    kind, extra = _kind(config, tensors, file)
    transcoder = "b_dec_out" in tensors
    if "W_skip" in tensors:
        extra["W_skip"] = tensors["W_skip"].T
    normalisation = config.get("normalize_activations") or "none"
    return Parts(
        kind=kind,
        W_enc=take(tensors, "W_enc", file),
        W_dec=take(tensors, "W_dec", file),
        b_enc=take(tensors, "b_gate" if kind == "gated" else "b_enc", file),
        b_dec=take(tensors, "b_dec_out" if transcoder else "b_dec", file),
        transcoder=transcoder,
        b_in=take(tensors, "b_dec", file) if transcoder else None,
        settings={"k": setting(config.get("activation_fn_kwargs") or {}, "k", file)} if kind == "topk" else {},
        tensors=extra,
        per_vector=normalisation if normalisation in ("layer_norm", "constant_norm_rescale") else None,
        provenance={
            "hookpoint": _hookpoint(config, "hook_point_layer", "layer_subtype"),
            "target_hookpoint": _hookpoint(config, "out_hook_point_layer", "layer_out_subtype") if transcoder else None,
            "vit_prisma": {key: value for key, value in config.items() if isinstance(value, str | int | float | dict)},
        },
    )


def _hookpoint(config: Mapping[str, Any], layer: str, site: str) -> str | None:
    """Return our name of the place that two settings name, None if one of them is not there."""
    if config.get(layer) is None or config.get(site) is None:
        return None
    return f"visual.blocks.{config[layer]}.{config[site]}"


def _kind(config: Mapping[str, Any], tensors: Mapping[str, Tensor], file: Path) -> tuple[str, dict[str, Tensor]]:
    architecture, activation = config.get("architecture", "standard"), config.get("activation_fn_str", "relu")
    if architecture == "gated" and activation == "relu":
        return "gated", {name: take(tensors, name, file) for name in ("r_mag", "b_mag")}
    if architecture == "standard" and activation in ("relu", "topk"):
        return activation, {}
    raise DictionaryError(
        f"{file}: architecture {architecture!r} with activation {activation!r}; standard with relu or topk, and gated "
        "with relu, are read."
    )
