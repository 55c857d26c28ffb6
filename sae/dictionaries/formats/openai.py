"""OpenAI sparse_autoencoder: a pickled state dict whose `activation` names the architecture.

codes = activation((x - pre_bias) @ encoder + latent_bias). Its TopK models take every vector through a layer norm
first and undo it behind, which the file does not say: it is so whenever `activation` is TopK.

Gao, Dupre la Tour, Tillman, Goh, Troll, Radford, Sutskever, Leike, Wu: Scaling and evaluating sparse autoencoders,
2024, arXiv 2406.04093.
"""

from pathlib import Path
from typing import Any

from sae.dictionaries.formats.files import pickle_at, read_pickle, setting, strings_in_pickle, take
from sae.dictionaries.formats.parts import Parts
from sae.errors import DictionaryError

NAME = "openai"
FILES = ("*.pt",)
HINTS = ()


def detect(path: Path) -> bool:
    file = pickle_at(path)
    return file is not None and strings_in_pickle(file) >= {"pre_bias", "latent_bias", "encoder.weight"}


def read(path: Path, hints: dict[str, Any]) -> Parts:
    """Return what a file of OpenAI's sparse_autoencoder holds.

    Raises:
        DictionaryError: an activation whose codes are not sparse.
    """
    file = pickle_at(path) or path
    state = read_pickle(file)
    name, settings = state.get("activation", "ReLU"), state.get("activation_state_dict", {})
    if name not in ("ReLU", "TopK") or settings.get("postact_fn", "ReLU") != "ReLU":
        raise DictionaryError(f"{file}: activation {name} {dict(settings)}; ReLU, and TopK with a ReLU, are read.")
    W_enc = take(state, "encoder.weight", file).T
    return Parts(
        kind="topk" if name == "TopK" else "relu",
        W_enc=W_enc,
        # Tied weights are saved under the name of the transposing module.
        W_dec=W_enc.T if "decoder.linear.weight" in state else take(state, "decoder.weight", file).T,
        b_enc=take(state, "latent_bias", file),
        b_dec=take(state, "pre_bias", file),
        settings={"k": int(setting(settings, "k", file))} if name == "TopK" else {},
        per_vector="layer_norm" if name == "TopK" else None,
        provenance={"openai": {"activation": name, **settings}},
    )
