"""SAELens: `cfg.json` and `sae_weights.safetensors`.

Since version 6 the config is nested (`architecture`, `metadata`); before, it was flat, with `hook_point` for
`hook_name`, and a TopK was a "standard" one with `activation_fn_str: topk`. What SAELens calls BatchTopK or Matryoshka
in training it saves as `jumprelu` with the threshold that it tracked. Decoder norms and input scales are folded in
files of current versions; `rescale_acts_by_decoder_norm` and `normalize_activations` say where they are not.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sae import config as configs
from sae.dictionaries.base import Dictionary
from sae.dictionaries.formats.files import read_json, read_safetensors, setting, take
from sae.dictionaries.formats.parts import Parts
from sae.dictionaries.sites import target_hookpoint
from sae.durable import write_durably
from sae.errors import DictionaryError, nearest

NAME = "saelens"
FILES = ("cfg.json", "sae_weights.safetensors")
HINTS = ("scale",)

KINDS = {
    "standard": "relu",
    "topk": "topk",
    "abstopk": "abs_topk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "matching_pursuit": "matching_pursuit",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
ARCHITECTURES = {
    "topk": "topk",
    "archetypal": "topk",
    "matching_pursuit": "matching_pursuit",
    "frozen_decoder": "topk",
    "frozen_encoder": "topk",
    "random_directions": "topk",
    "abs_topk": "abstopk",
    "relu": "standard",
    "thresholded": "jumprelu",
    "jumprelu": "jumprelu",
    "batch_topk": "jumprelu",
    "matryoshka": "jumprelu",
    "gated": "gated",
}
EXTRA = {"jumprelu": ("threshold",), "gated": ("r_mag", "b_mag")}
LAYOUT_VERSION = "6.0.0"
"""First version of SAELens whose layout `write` follows."""


def detect(path: Path) -> bool:
    return all((path / name).is_file() for name in FILES)


def read(path: Path, hints: dict[str, Any]) -> Parts:
    """Return what a folder of SAELens holds.

    Raises:
        DictionaryError: an architecture or input normalisation that a dictionary of ours cannot have.
    """
    config, tensors = _current(read_json(path / "cfg.json")), read_safetensors(path / "sae_weights.safetensors")
    architecture = setting(config, "architecture", path)
    if architecture not in KINDS:
        raise DictionaryError(f"{path}: SAELens architecture {architecture!r}.{nearest(architecture, KINDS)}")
    if architecture == "matching_pursuit":
        return _read_pursuit(config, tensors, path)
    kind = KINDS[architecture]
    names = ("threshold",) if kind == "jumprelu" else EXTRA.get(kind, ())
    extra = {name: take(tensors, name, path) for name in names}
    if "W_skip" in tensors:
        extra["W_skip"] = tensors["W_skip"].T
    parts = Parts(
        kind=kind,
        W_enc=take(tensors, "W_enc", path),
        W_dec=_rescaled_decoder(tensors, path),
        b_enc=take(tensors, "b_gate" if kind == "gated" else "b_enc", path),
        b_dec=take(tensors, "b_dec", path),
        subtracts_b_dec=config.get("apply_b_dec_to_input", True),
        transcoder="transcoder" in architecture,
        settings={"k": setting(config, "k", path)} if kind in ("topk", "abs_topk") else {},
        tensors=extra,
        per_vector=_per_vector(config.get("normalize_activations") or "none", hints, path),
        provenance=_provenance(config),
    )
    return parts.ranked_by_output() if config.get("rescale_acts_by_decoder_norm") else parts


def write(dictionary: Dictionary, path: Path) -> None:
    """Write a dictionary as SAELens 6 does, so that `SAE.load_from_disk` gives the same codes and reconstructions.

    Raises:
        DictionaryError: SAELens has no architecture with these codes.
    """
    architecture, ours = _architecture(dictionary), dictionary.tensors()
    if bool((ours.get("threshold", ours["b_dec"].new_zeros(1)) < 0).any()):
        raise DictionaryError(f"{dictionary!r}: a threshold below zero; SAELens applies a ReLU, so codes would differ.")
    settings: dict[str, Any] = {}
    if architecture in ("topk", "abstopk"):
        settings = {"k": configs.encode(dictionary.config)["k"], "rescale_acts_by_decoder_norm": False}
    if architecture == "matching_pursuit":
        steps = configs.encode(dictionary.config)["k"]
        settings = {"residual_threshold": 0.0, "max_iterations": steps, "stop_on_duplicate_support": False}
    if dictionary.is_transcoder:
        settings = {"d_out": dictionary.d_out}
    config = {
        "d_in": dictionary.d_in,
        "d_sae": dictionary.d_sae,
        "dtype": str(dictionary.W_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": not dictionary.is_transcoder,
        "normalize_activations": "layer_norm" if dictionary.config.layer_norm else "none",
        "reshape_activations": "none",
        "metadata": _metadata(dictionary),
        "architecture": architecture,
        **settings,
    }
    tensors = _tensors(dictionary, architecture)
    write_durably(path / "sae_weights.safetensors", [save(tensors)], DictionaryError)
    write_durably(path / "cfg.json", [json.dumps(config, indent=2).encode()], DictionaryError)


def _architecture(dictionary: Dictionary) -> str:
    """Return what SAELens calls a dictionary."""
    kind = dictionary.config.kind
    if kind not in ARCHITECTURES:
        raise DictionaryError(
            f"{dictionary!r}: SAELens has no architecture that gives the codes of a {kind} dictionary. It can hold "
            f"{', '.join(ARCHITECTURES)}."
        )
    architecture = ARCHITECTURES[kind]
    if architecture == "matching_pursuit" and not torch.equal(dictionary.W_enc_rows, dictionary.W_dec):
        raise DictionaryError(f"{dictionary!r}: in SAELens, a matching pursuit reads along the directions it writes.")
    if not dictionary.is_transcoder:
        return architecture
    if architecture not in ("standard", "jumprelu"):
        raise DictionaryError(f"{dictionary!r}: SAELens has transcoders with a ReLU or a JumpReLU, not with {kind}.")
    jump, skip = "jumprelu_" * (architecture == "jumprelu"), "skip_" * dictionary.config.skip
    return f"{jump}{skip}transcoder"


def _tensors(dictionary: Dictionary, architecture: str) -> dict[str, Tensor]:
    """Return what SAELens saves."""
    ours = dictionary.tensors()
    if architecture == "matching_pursuit":
        return {name: ours[name].cpu().contiguous() for name in ("W_dec", "b_dec")}
    extra = EXTRA["jumprelu"] if "jumprelu" in architecture else EXTRA.get(architecture, ())
    tensors = {name: ours[name] for name in ("W_enc", "W_dec", "b_dec", "b_enc", *extra)}
    if architecture == "gated":
        tensors["b_gate"] = tensors.pop("b_enc")
    if dictionary.config.skip:
        tensors["W_skip"] = ours["W_skip"].T
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _read_pursuit(config: dict[str, Any], tensors: dict[str, Tensor], path: Path) -> Parts:
    """Return a matching pursuit, whose directions also read, if it always takes the same number of steps."""
    if config.get("residual_threshold", 1e-2) > 0 or config.get("stop_on_duplicate_support", True):
        raise DictionaryError(
            f"{path}: a matching pursuit that stops early, at residual_threshold or stop_on_duplicate_support; ours "
            "takes k steps."
        )
    W_dec = take(tensors, "W_dec", path)
    return Parts(
        kind="matching_pursuit",
        W_enc=W_dec.T,
        W_dec=W_dec,
        b_dec=take(tensors, "b_dec", path) if config.get("apply_b_dec_to_input", True) else None,
        settings={"k": config.get("max_iterations") or W_dec.shape[1]},
        per_vector=_per_vector(config.get("normalize_activations") or "none", {}, path),
        provenance=_provenance(config),
    )


def _current(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config under the names of version 6."""
    if "metadata" in config:
        return config
    renamed = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
    config = {renamed.get(key, key): value for key, value in config.items()}
    activation = config.get("activation_fn", "relu")
    architecture = config.get("architecture", "standard")
    if activation not in ("relu", "topk"):
        raise DictionaryError(f"SAELens activation {activation!r}.{nearest(str(activation), ('relu', 'topk'))}")
    if activation == "topk":
        config |= {"architecture": "topk", "k": (config.get("activation_fn_kwargs") or {}).get("k", config.get("k"))}
    else:
        config["architecture"] = architecture
    if isinstance(config.get("normalize_activations"), bool):
        config["normalize_activations"] = "expected_average_only_in" if config["normalize_activations"] else "none"
    named = (
        "model_name",
        "hook_name",
        "hook_name_out",
        "dataset_path",
        "context_size",
        "prepend_bos",
        "sae_lens_version",
    )
    return config | {"metadata": {key: config[key] for key in named if key in config}}


def _per_vector(normalisation: str, hints: dict[str, Any], path: Path) -> str | None:
    """Return the normalisation of single vectors that a config asks for; that of the whole data is given by a hint."""
    if normalisation == "expected_average_only_in" and "scale" not in hints:
        raise DictionaryError(
            f"{path}: it was trained on inputs scaled to mean norm sqrt(d_in), and the factor is not in the file. Give "
            "scale=sqrt(d_in) / (mean norm of the vectors); scale=1 reads it as SAELens does, for scaled vectors."
        )
    return None if normalisation in ("none", "expected_average_only_in") else normalisation


def _rescaled_decoder(tensors: dict[str, Tensor], path: Path) -> Tensor:
    """Return W_dec times the factors that versions before 6 could fine-tune against shrinkage."""
    W_dec = take(tensors, "W_dec", path)
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in tensors and not torch.all(tensors[name] == 1):
            W_dec = W_dec * tensors[name].reshape(-1, 1)
    return W_dec


def _provenance(config: dict[str, Any]) -> dict[str, Any]:
    metadata = config["metadata"]
    provenance = dict(metadata.get("provenance") or {})
    if metadata.get("hook_name"):
        provenance["hookpoint"] = metadata["hook_name"]
    if "transcoder" in config["architecture"] and metadata.get("hook_name_out"):
        provenance["target_hookpoint"] = metadata["hook_name_out"]
    kept = {key: value for key, value in metadata.items() if key != "provenance" and value is not None}
    return provenance | {"saelens": kept}


def _metadata(dictionary: Dictionary) -> dict[str, Any]:
    provenance = {key: value for key, value in dictionary.provenance.items() if key != "saelens"}
    return {
        "sae_lens_version": LAYOUT_VERSION,
        "model_name": str(provenance.get("subject", "")).removeprefix("language:") or None,
        "hook_name": provenance.get("hookpoint"),
        **({"hook_name_out": target_hookpoint(dictionary)} if dictionary.is_transcoder else {}),
        "training_architecture": dictionary.config.kind,
        "provenance": provenance,
    }
