"""Llamascopium (formerly Language-Model-SAEs) and the Llama Scope release.

Now: `config.json` and `sae_weights.safetensors` with W_E, b_E, W_D, b_D; the Llama-Scope-R1-Distill release has the
same files with the older names of tensors. Llama Scope itself: `hyperparams.json` and `checkpoints/final.safetensors`.

    pre   = W_E.T @ (x * scale) + b_E                b_D is not subtracted; scale from `dataset_average_activation_norm`
    codes = pre where act_fn(pre * |W_D|) is active  |W_D| only with `sparsity_include_decoder_norm`

Codes are those for the scaled inputs, as the library's own are unless its scale is folded. The single
`jump_relu_threshold` of Llama Scope was measured after folding the scale and after giving decoder rows norm 1, so there
that is done first, as the library of that time did on loading.

He, Shu, Ge, Chen, Wang, Zhou, Liu, Guo, Huang, Wu, Jiang, Qiu: Llama Scope: Extracting Millions of Features from
Llama-3.1-8B with Sparse Autoencoders, 2024, arXiv 2410.20526.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.dictionaries.formats.files import read_json, read_safetensors, setting, take
from sae.dictionaries.formats.parts import Parts
from sae.errors import DictionaryError, nearest

NAME = "llamascopium"
FILES = ("config.json", "sae_weights.safetensors", "hyperparams.json", "checkpoints/final.safetensors")
HINTS = ("scale",)

KINDS = {"relu": "relu", "topk": "topk", "jumprelu": "jumprelu"}
OLD_NAMES = {"W_E": "encoder.weight", "b_E": "encoder.bias", "W_D": "decoder.weight", "b_D": "decoder.bias"}
LOG_THRESHOLDS = ("activation_function.log_jumprelu_threshold", "log_jumprelu_threshold")
NORM = "dataset_average_activation_norm"


def detect(path: Path) -> bool:
    now = (path / "config.json").is_file() and (path / "sae_weights.safetensors").is_file()
    return now or (path / "hyperparams.json").is_file()


def read(path: Path, hints: dict[str, Any]) -> Parts:
    """Return what a folder of Llamascopium or Llama Scope holds.

    Raises:
        DictionaryError: an architecture, gate or normalisation that a dictionary of ours cannot have.
    """
    if (path / "hyperparams.json").is_file():
        return _read_llama_scope(path)
    config, tensors = read_json(path / "config.json"), read_safetensors(path / "sae_weights.safetensors")
    _check(config, path)
    norm = config.get("norm_activation", "dataset-wise")
    parts = _parts(config, tensors, path, per_vector=norm if norm in ("token-wise", "batch-wise") else None)
    if parts.kind == "jumprelu":
        threshold = next((tensors[name] for name in LOG_THRESHOLDS if name in tensors), None)
        if threshold is None:
            raise DictionaryError(f"{path}: a jumprelu without its thresholds, {' or '.join(LOG_THRESHOLDS)}.")
        norms = parts.W_dec.norm(dim=1) if config.get("sparsity_include_decoder_norm", True) else 1
        parts = replace(parts, tensors={**parts.tensors, "threshold": threshold.exp() / norms})
    elif parts.kind == "topk" and config.get("sparsity_include_decoder_norm", True):
        parts = parts.ranked_by_output()
    if norm == "dataset-wise" and "scale" not in hints:
        scales = []
        for hook in (config["hook_point_in"], _outputs(config)):
            mean_norm = float(tensors.get(f"{NORM}.{hook}", torch.tensor(0.0)))
            if not 0 < mean_norm < math.inf:
                raise DictionaryError(
                    f"{path}: no mean norm of {hook} in the file; give scale=sqrt(d_in) / (mean norm)."
                )
            scales.append(math.sqrt(config["d_model"]) / mean_norm)
        parts = parts.scaled(*scales)
    return parts


def _read_llama_scope(path: Path) -> Parts:
    config, tensors = read_json(path / "hyperparams.json"), read_safetensors(path / "checkpoints/final.safetensors")
    _check(config, path)
    norm = config.get("norm_activation", "dataset-wise")
    parts = _parts(config, tensors, path, per_vector=norm if norm in ("token-wise", "batch-wise") else None)
    if norm == "dataset-wise":
        norms = setting(config, NORM, path)
        into, out = (math.sqrt(config["d_model"]) / setting(norms, side, path) for side in ("in", "out"))
        b_dec = None if parts.b_dec is None else parts.b_dec.float() / out
        b_enc = None if parts.b_enc is None else parts.b_enc.float() / into
        parts = replace(parts, b_enc=b_enc, b_dec=b_dec, W_dec=parts.W_dec.float() * (into / out))
    if config.get("sparsity_include_decoder_norm", True):
        parts = replace(parts, W_enc=parts.W_enc.float(), W_dec=parts.W_dec.float()).ranked_by_output()
    threshold = config.get("jump_relu_threshold", 0.0)
    if parts.kind == "jumprelu" or (parts.kind == "topk" and threshold > 0):
        thresholds = torch.full((parts.W_dec.shape[0],), threshold)
        parts = replace(parts, kind="jumprelu", settings={}, tensors={**parts.tensors, "threshold": thresholds})
    return parts


def _check(config: dict[str, Any], path: Path) -> None:
    for name in ("hook_point_in", "d_model"):
        setting(config, name, path)
    if config.get("sae_type", "sae") != "sae":
        raise DictionaryError(f"{path}: sae_type {config['sae_type']!r}; this version reads 'sae'.")
    if config.get("use_glu_encoder"):
        raise DictionaryError(f"{path}: an encoder with a gated linear unit; a dictionary of ours has a linear one.")
    activation = config.get("act_fn", "relu").lower()
    if activation == "batchtopk":
        raise DictionaryError(
            f"{path}: batchtopk without a threshold; codes would depend on the other vectors of a batch. Turn it into "
            "a jumprelu with Llamascopium first."
        )
    if activation not in KINDS:
        raise DictionaryError(f"{path}: act_fn {activation!r}.{nearest(activation, KINDS)}")


def _parts(config: dict[str, Any], tensors: dict[str, Tensor], path: Path, per_vector: str | None) -> Parts:
    old = "encoder.weight" in tensors
    if old:
        tensors = {new: tensors[before] for new, before in OLD_NAMES.items() if before in tensors}
        tensors |= {name: tensors[name].T for name in ("W_E", "W_D")}
    kind, transcoder = KINDS[config.get("act_fn", "relu").lower()], _outputs(config) != config["hook_point_in"]
    return Parts(
        kind=kind,
        W_enc=take(tensors, "W_E", path),
        W_dec=take(tensors, "W_D", path),
        b_enc=take(tensors, "b_E", path),
        b_dec=tensors.get("b_D"),
        subtracts_b_dec=bool(config.get("apply_decoder_bias_to_pre_encoder", False)),
        transcoder=transcoder,
        settings={"k": setting(config, "top_k", path)} if kind == "topk" else {},
        per_vector=per_vector,
        provenance={
            "hookpoint": config["hook_point_in"],
            "target_hookpoint": _outputs(config) if transcoder else None,
            "llamascopium": config,
        },
    )


def _outputs(config: dict[str, Any]) -> str:
    """Return the hookpoint that is written."""
    return config.get("hook_point_out", config["hook_point_in"])
