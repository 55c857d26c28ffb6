"""EleutherAI sparsify: `cfg.json` and `sae.safetensors`, one folder per hookpoint.

codes = top k of relu(W_enc.T @ (x - b_dec) + b_enc); a transcoder does not subtract b_dec. `W_dec` lies as ours does,
[d_sae d_in], whatever its name in other loaders suggests. Early files have `signed`, which keeps the k largest
magnitudes with their sign.
"""

import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import save

from sae import config as configs
from sae.dictionaries.base import Dictionary
from sae.dictionaries.formats.files import read_json, read_safetensors, setting, take
from sae.dictionaries.formats.parts import Parts
from sae.durable import write_durably
from sae.errors import DictionaryError

NAME = "sparsify"
FILES = ("cfg.json", "sae.safetensors")
HINTS = ()

KINDS = ("topk", "archetypal", "frozen_decoder", "frozen_encoder", "random_directions")
"""Kinds of ours that sparsify can hold: those that keep the k largest pre-activations."""


def detect(path: Path) -> bool:
    return all((path / name).is_file() for name in FILES)


def read(path: Path, hints: dict[str, Any]) -> Parts:
    """Return what a folder of sparsify holds.

    Raises:
        DictionaryError: an activation that a dictionary of ours cannot have.
    """
    config, tensors = read_json(path / "cfg.json"), read_safetensors(path / "sae.safetensors")
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise DictionaryError(f"{path}: sparsify activation {activation!r} is not read; topk is.")
    if "W_skip" in tensors and not config.get("transcode"):
        raise DictionaryError(f"{path}: an autoencoder with a skip connection; ours have that as transcoders only.")
    extra = {"W_skip": tensors["W_skip"].T} if "W_skip" in tensors else {}
    return Parts(
        kind="abs_topk" if config.get("signed") else "topk",
        W_enc=take(tensors, "encoder.weight", path).T,
        W_dec=take(tensors, "W_dec", path),
        b_enc=tensors.get("encoder.bias"),
        b_dec=tensors.get("b_dec"),
        transcoder=bool(config.get("transcode")),
        settings={"k": setting(config, "k", path)},
        tensors=extra,
        provenance={**_ends(path.name, bool(config.get("transcode"))), "sparsify": config},
    )


def write(dictionary: Dictionary, path: Path) -> None:
    """Write a dictionary as sparsify does, so that `SparseCoder.load_from_disk` gives the same codes.

    Raises:
        DictionaryError: it is not a TopK, the one architecture of sparsify, or not on plain vectors of one width.
    """
    _check(dictionary)
    ours, skip = dictionary.tensors(), dictionary.config.skip
    tensors = {
        "encoder.weight": ours["W_enc"].T,
        "encoder.bias": ours["b_enc"],
        "W_dec": ours["W_dec"],
        "b_dec": ours["b_dec"],
        **({"W_skip": ours["W_skip"].T} if skip else {}),
    }
    config = {
        "activation": "topk",
        "expansion_factor": max(dictionary.d_sae // dictionary.d_in, 1),
        "normalize_decoder": True,
        "num_latents": dictionary.d_sae,
        "k": configs.encode(dictionary.config)["k"],
        "multi_topk": False,
        "skip_connection": skip,
        "transcode": dictionary.is_transcoder,
        "d_in": dictionary.d_in,
    }
    data = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    write_durably(path / "sae.safetensors", [data], DictionaryError)
    write_durably(path / "cfg.json", [json.dumps(config, indent=2).encode()], DictionaryError)


def _check(dictionary: Dictionary) -> None:
    kind = dictionary.config.kind
    if kind not in KINDS:
        raise DictionaryError(
            f"{dictionary!r}: sparsify keeps the k largest pre-activations of every vector and nothing else, so a "
            f"{kind} dictionary would give other codes there. It can hold {', '.join(KINDS)}."
        )
    if dictionary.config.layer_norm:
        raise DictionaryError(f"{dictionary!r}: sparsify takes vectors as they are; it has no layer norm.")
    if dictionary.d_out != dictionary.d_in:
        raise DictionaryError(f"{dictionary!r}: a transcoder of sparsify writes vectors as wide as it reads.")


def _ends(folder: str, transcode: bool) -> dict[str, str]:
    """Return our names of where a module that a folder is named after is read: its output, for a transcoder both ends.

    Empty for what has no name with us.
    """
    found = re.fullmatch(r"(?:\w+\.)*?(?:layers|h)\.(\d+)(\.mlp)?", folder)
    if found is None:
        return {}
    given, gives = ("mlp.hook_in", "hook_mlp_out") if found[2] else ("hook_resid_pre", "hook_resid_post")
    block = f"blocks.{found[1]}"
    if not transcode:
        return {"hookpoint": f"{block}.{gives}"}
    return {"hookpoint": f"{block}.{given}", "target_hookpoint": f"{block}.{gives}"}
