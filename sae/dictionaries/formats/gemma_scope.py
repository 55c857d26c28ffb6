"""Gemma Scope 1 (`params.npz`) and 2 (`params.safetensors`, `config.json`): JumpReLU that encodes x, not x - b_dec.

Names of matrices are upper or lower case. The files do not say which hookpoint they belong to; the folders of their
repositories do. Those for the embedding read vectors as the weights have them, before Gemma multiplies them by
sqrt(d_in): give scale=d_in**-0.5 for vectors after that.

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
    return Parts(
        kind="jumprelu",
        W_enc=take(tensors, "W_enc", path),
        W_dec=tensors["W_dec"],
        b_enc=take(tensors, "b_enc", path),
        b_dec=take(tensors, "b_dec", path),
        subtracts_b_dec=False,
        transcoder=bool(extra or re.search(TRANSCODERS, place) or outputs not in (None, inputs)),
        tensors={"threshold": take(tensors, "threshold", path), **extra},
        provenance={"hookpoint": _hookpoint(place), "gemma_scope": config},
    )


def _hookpoint(place: str) -> str | None:
    layer = re.search(r"layer_(\d+)", place)
    site = re.search(r"gemma-scope-\w+-(?:pt|it)-(res|mlp|att)\b", place) or re.search(
        r"/(resid_post|mlp_out|attn_out)[^/]*/", place + "/"
    )
    return f"blocks.{layer[1]}.{SITES[site[1]]}" if layer and site else None
