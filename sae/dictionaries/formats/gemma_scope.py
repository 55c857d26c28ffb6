"""Gemma Scope 1 (`params.npz`) and 2 (`params.safetensors`, `config.json`): JumpReLU that encodes x, not x - b_dec.

Names of matrices are upper or lower case. Which hookpoint they belong to stands in the config of Gemma Scope 2; for 1
the folders of the repositories tell, except for transcoders. Those for the embedding read vectors as the weights have
them, before Gemma multiplies them by sqrt(d_in): give scale=d_in**-0.5 for vectors after that.

Lieberum, Rajamanoharan, Conmy, Smith, Sonnerat, Varma, Kramar, Dragan, Shah, Nanda: Gemma Scope: Open Sparse
Autoencoders Everywhere All At Once on Gemma 2, 2024, arXiv 2408.05147.
"""

import re
from pathlib import Path
from typing import Any

import torch

from sae.dictionaries.formats.files import read_json, read_npz, read_safetensors, take
from sae.dictionaries.formats.parts import Parts
from sae.errors import DictionaryError

NAME = "gemma_scope"
FILES = ("params.npz", "params.safetensors", "config.json")
HINTS = ("scale",)

SITES = {
    "res": "hook_resid_post",
    "resid_post": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "mlp_out": "hook_mlp_out",
    "att": "attn.hook_z",
    "attn_out": "attn.hook_z",
}
"""Our names of where the vectors come from, by the end of the repository's name (1) or the folder's (2)."""
MODULES = {
    "output": "hook_resid_post",
    "self_attn.o_proj.input": "attn.hook_z",
    "pre_feedforward_layernorm.output": "mlp.hook_in",
    "post_feedforward_layernorm.output": "hook_mlp_out",
}
"""Our names of the places that the configs of 2 name by modules of the Hugging Face model."""
TRANSCODERS = r"gemma-scope-[\w-]+-transcoders|/transcoder(_all)?/"
"""Where the releases keep transcoders; those of Gemma Scope 1 have the same tensors as its autoencoders."""


def detect(path: Path) -> bool:
    return (path / "params.npz").is_file() or (path / "params.safetensors").is_file()


def read(path: Path, hints: dict[str, Any]) -> Parts:
    """Return what a folder of Gemma Scope holds.

    Raises:
        DictionaryError: a cross-layer transcoder, or a file that is not as the releases are.
    """
    first = (path / "params.npz").is_file()
    tensors = read_npz(path / "params.npz") if first else read_safetensors(path / "params.safetensors")
    config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    place = "/".join(path.resolve().parts)
    inputs, outputs = config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise DictionaryError(f"{path}: architecture {config['architecture']!r}; Gemma Scope has jump_relu.")
    if "scaling_factor" in tensors and not torch.all(tensors["scaling_factor"] == 1):
        raise DictionaryError(f"{path}: a scaling_factor other than 1, whose meaning the releases do not say.")
    tensors = {re.sub("^w_", "W_", name): tensor for name, tensor in tensors.items()}
    if take(tensors, "W_dec", path).ndim != 2:
        raise DictionaryError(f"{path}: a cross-layer transcoder; its decoder writes several layers.")
    extra = {"W_skip": tensors["affine_skip_connection"]} if "affine_skip_connection" in tensors else {}
    transcoder = bool(extra or re.search(TRANSCODERS, place) or outputs not in (None, inputs))
    return Parts(
        kind="jumprelu",
        W_enc=take(tensors, "W_enc", path),
        W_dec=tensors["W_dec"],
        b_enc=take(tensors, "b_enc", path),
        b_dec=take(tensors, "b_dec", path),
        subtracts_b_dec=False,
        transcoder=transcoder,
        tensors={"threshold": take(tensors, "threshold", path), **extra},
        provenance={
            "hookpoint": _named(inputs) or _hookpoint(place),
            "target_hookpoint": _named(outputs) if transcoder else None,
            "gemma_scope": config,
        },
    )


def _named(module: str | None) -> str | None:
    """Return our name of a place in the Hugging Face model, None for what has no name with us."""
    found = re.fullmatch(r"(?:\w+\.)*layers\.(\d+)\.(.+)", module or "")
    return f"blocks.{found[1]}.{MODULES[found[2]]}" if found and found[2] in MODULES else None


def _hookpoint(place: str) -> str | None:
    layer = re.search(r"layer_(\d+)", place)
    site = re.search(r"gemma-scope-\w+-(?:pt|it)-(res|mlp|att)\b", place) or re.search(
        r"/(resid_post|mlp_out|attn_out)[^/]*/", place + "/"
    )
    return f"blocks.{layer[1]}.{SITES[site[1]]}" if layer and site else None
