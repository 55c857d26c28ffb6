"""Formats whose libraries cannot be installed here: files laid out as they write them, codes worked out naively."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sae.dictionaries import io
from sae.dictionaries.base import Dictionary
from sae.dictionaries.formats import registry as formats
from sae.dictionaries.io import load_dictionary
from sae.errors import DictionaryError

D_IN, K = 6, 3
SIZES = pytest.mark.parametrize("d_sae", [6, 10])


class Weights:
    """Random W_enc [d_in d_sae], W_dec [d_sae d_in], biases, thresholds and inputs."""

    def __init__(self, d_sae: int) -> None:
        generator = torch.Generator().manual_seed(d_sae)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator) * 0.6

        self.W_enc, self.W_dec = draw(D_IN, d_sae), draw(d_sae, D_IN)
        self.b_enc, self.b_dec = draw(d_sae), draw(D_IN)
        self.threshold = draw(d_sae).abs()
        self.x = draw(30, D_IN) * 3

    def pre(self, centred: bool) -> Tensor:
        return (self.x - self.b_dec if centred else self.x) @ self.W_enc + self.b_enc


def jump(pre: Tensor, threshold: Tensor | float) -> Tensor:
    return pre.relu() * (pre > threshold)


def topk(pre: Tensor) -> Tensor:
    found = pre.topk(K, dim=1)
    return torch.zeros_like(pre).scatter_(1, found.indices, found.values.relu())


def layer_norm(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """That of SAELens, OpenAI and ViT-Prisma; return also what undoes it."""
    mean, deviation = x.mean(1, keepdim=True), x.std(1, keepdim=True)
    return (x - mean) / (deviation + 1e-5), lambda y: y * deviation + mean


def check(dictionary: Dictionary, x: Tensor, codes: Tensor, x_hat: Tensor) -> None:
    found = dictionary.encode(x)
    torch.testing.assert_close(found.dense(), codes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dictionary.decode(found), x_hat, rtol=1e-5, atol=1e-5)
    assert (codes != 0).any()


def ends_of(dictionary: Dictionary) -> tuple[str | None, str | None]:
    """What a transcoder reads and writes, as far as its file says."""
    return dictionary.provenance.get("hookpoint"), dictionary.provenance.get("target_hookpoint")


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def tensors_file(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


# Gemma Scope


@SIZES
@pytest.mark.parametrize("upper", [True, False])
def test_gemma_scope_1(d_sae: int, upper: bool, tmp_path: Path) -> None:
    w = Weights(d_sae)
    folder = tmp_path / "models--google--gemma-scope-2b-pt-res" / "layer_20" / "width_16k" / "average_l0_71"
    folder.mkdir(parents=True)
    names = ("W_enc", "W_dec") if upper else ("w_enc", "w_dec")
    arrays = {names[0]: w.W_enc, names[1]: w.W_dec, "b_enc": w.b_enc, "b_dec": w.b_dec, "threshold": w.threshold}
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in arrays.items()})
    dictionary = load_dictionary(folder)
    codes = jump(w.pre(centred=False), w.threshold)
    check(dictionary, w.x, codes, codes @ w.W_dec + w.b_dec)
    assert dictionary.provenance["hookpoint"] == "blocks.20.hook_resid_post"
    scaled = load_dictionary(folder, scale=0.5)
    check(scaled, w.x * 2, codes, (codes @ w.W_dec + w.b_dec) * 2)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DictionaryError, match="not a readable archive of plain arrays"):
        load_dictionary(tmp_path)


@SIZES
def test_gemma_scope_2(d_sae: int, tmp_path: Path) -> None:
    w = Weights(d_sae)
    folder = tmp_path / "resid_post" / "layer_12_width_16k_l0_small"
    tensors = {"w_enc": w.W_enc, "w_dec": w.W_dec, "b_enc": w.b_enc, "b_dec": w.b_dec, "threshold": w.threshold}
    tensors_file(folder / "params.safetensors", tensors)
    write_json(folder / "config.json", {"architecture": "jump_relu", "hf_hook_point_in": "model.layers.12.output"})
    dictionary = load_dictionary(folder)
    codes = jump(w.pre(centred=False), w.threshold)
    check(dictionary, w.x, codes, codes @ w.W_dec + w.b_dec)
    assert dictionary.provenance["hookpoint"] == "blocks.12.hook_resid_post"
    assert "target_hookpoint" not in dictionary.provenance


@pytest.mark.parametrize(
    ("module", "hookpoint"),
    [
        ("model.layers.5.output", "blocks.5.hook_resid_post"),
        ("model.layers.5.self_attn.o_proj.input", "blocks.5.attn.hook_z"),
        ("language_model.model.layers.17.post_feedforward_layernorm.output", "blocks.17.hook_mlp_out"),
        ("model.layers.5.somewhere.else", None),
    ],
)
def test_gemma_scope_2_names_its_place_in_the_config(module: str, hookpoint: str | None, tmp_path: Path) -> None:
    w = Weights(10)
    tensors = {"w_enc": w.W_enc, "w_dec": w.W_dec, "b_enc": w.b_enc, "b_dec": w.b_dec, "threshold": w.threshold}
    tensors_file(tmp_path / "params.safetensors", tensors)
    write_json(tmp_path / "config.json", {"hf_hook_point_in": module, "hf_hook_point_out": module})
    dictionary = load_dictionary(tmp_path)
    assert not dictionary.is_transcoder
    assert dictionary.provenance.get("hookpoint") == hookpoint
    assert "target_hookpoint" not in dictionary.provenance


def test_gemma_scope_transcoders(tmp_path: Path) -> None:
    w, skip = Weights(10), torch.randn(D_IN, D_IN)
    tensors = {"w_enc": w.W_enc, "w_dec": w.W_dec, "b_enc": w.b_enc, "b_dec": w.b_dec, "threshold": w.threshold}
    tensors_file(tmp_path / "params.safetensors", tensors | {"affine_skip_connection": skip})
    ends = {
        "hf_hook_point_in": "model.layers.5.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.5.post_feedforward_layernorm.output",
    }
    write_json(tmp_path / "config.json", {"architecture": "jump_relu", **ends})
    dictionary = load_dictionary(tmp_path)
    assert ends_of(dictionary) == ("blocks.5.mlp.hook_in", "blocks.5.hook_mlp_out")
    codes = jump(w.pre(centred=False), w.threshold)
    written = codes @ w.W_dec + w.b_dec
    check(dictionary, w.x, codes, written)
    torch.testing.assert_close(dictionary(w.x), written + w.x @ skip, rtol=1e-5, atol=1e-5)
    scaled = load_dictionary(tmp_path, scale=0.5)
    torch.testing.assert_close(scaled(w.x * 2), 2 * (written + w.x @ skip), rtol=1e-5, atol=1e-5)

    released = tmp_path / "models--google--gemma-scope-2b-pt-transcoders" / "layer_3"
    tensors_file(released / "params.safetensors", tensors)
    assert load_dictionary(released).is_transcoder
    assert ends_of(load_dictionary(released)) == (None, None)
    tensors_file(tmp_path / "params.safetensors", tensors | {"w_dec": torch.randn(10, 2, D_IN)})
    with pytest.raises(DictionaryError, match="cross-layer transcoder"):
        load_dictionary(tmp_path)


# OpenAI


def openai_state(w: Weights, **activation: Any) -> dict[str, Any]:
    return {
        "pre_bias": w.b_dec,
        "latent_bias": w.b_enc,
        "encoder.weight": w.W_enc.T,
        "decoder.weight": w.W_dec.T,
        "stats_last_nonzero": torch.zeros(len(w.b_enc), dtype=torch.long),
        "latents_activation_frequency": torch.ones(len(w.b_enc)),
        "latents_mean_square": torch.zeros(len(w.b_enc)),
        **activation,
    }


@SIZES
def test_openai_relu(d_sae: int, tmp_path: Path) -> None:
    w = Weights(d_sae)
    torch.save(openai_state(w, activation="ReLU"), tmp_path / "8.pt")
    codes = w.pre(centred=True).relu()
    for source in (tmp_path, tmp_path / "8.pt"):
        check(load_dictionary(source), w.x, codes, codes @ w.W_dec + w.b_dec)


@SIZES
def test_openai_tied_weights(d_sae: int, tmp_path: Path) -> None:
    w = Weights(d_sae)
    state = openai_state(w)
    state["decoder.linear.weight"] = state["encoder.weight"]
    del state["decoder.weight"]
    torch.save(state, tmp_path / "8.pt")
    codes = w.pre(centred=True).relu()
    check(load_dictionary(tmp_path), w.x, codes, codes @ w.W_enc.T + w.b_dec)


@SIZES
def test_openai_topk_is_normalised_by_vector(d_sae: int, tmp_path: Path) -> None:
    w = Weights(d_sae)
    settings = {"k": K, "postact_fn": "ReLU"}
    torch.save(openai_state(w, activation="TopK", activation_state_dict=settings), tmp_path / "8.pt")
    x, back = layer_norm(w.x)
    codes = topk((x - w.b_dec) @ w.W_enc + w.b_enc)
    check(load_dictionary(tmp_path), w.x, codes, back(codes @ w.W_dec + w.b_dec))


def test_openai_dense_activation_is_refused(tmp_path: Path) -> None:
    torch.save(openai_state(Weights(10), activation="Identity"), tmp_path / "8.pt")
    with pytest.raises(DictionaryError, match="activation Identity"):
        load_dictionary(tmp_path)


# Llama Scope


@SIZES
def test_llama_scope(d_sae: int, tmp_path: Path) -> None:
    """The threshold holds for unscaled inputs and decoder rows of norm 1, as the library of that time folded them."""
    w, mean_norm, threshold = Weights(d_sae), 4.0, 0.3
    stored = {
        "encoder.weight": w.W_enc.T,
        "encoder.bias": w.b_enc,
        "decoder.weight": w.W_dec.T,
        "decoder.bias": w.b_dec,
    }
    tensors_file(tmp_path / "checkpoints" / "final.safetensors", stored)
    hyperparameters = {
        "d_model": D_IN,
        "d_sae": d_sae,
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "act_fn": "jumprelu",
        "jump_relu_threshold": threshold,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": mean_norm, "out": mean_norm},
        "sparsity_include_decoder_norm": True,
        "top_k": 50,
    }
    write_json(tmp_path / "hyperparams.json", hyperparameters)
    scale, norms = D_IN**0.5 / mean_norm, w.W_dec.norm(dim=1)
    pre = (w.x @ w.W_enc + w.b_enc / scale) * norms
    codes = jump(pre, threshold)
    dictionary = load_dictionary(tmp_path)
    check(dictionary, w.x, codes, codes @ (w.W_dec / norms[:, None]) + w.b_dec / scale)
    assert dictionary.provenance["hookpoint"] == "blocks.15.hook_resid_post"

    # Without a threshold, the same file is what it says: the k that add most to the (scaled) output.
    write_json(
        tmp_path / "hyperparams.json", hyperparameters | {"act_fn": "topk", "top_k": K, "jump_relu_threshold": 0}
    )
    codes = topk(pre)
    check(load_dictionary(tmp_path), w.x, codes, codes @ (w.W_dec / norms[:, None]) + w.b_dec / scale)


@SIZES
def test_llama_scope_distilled(d_sae: int, tmp_path: Path) -> None:
    """Newer files, older names of tensors."""
    w = Weights(d_sae)
    stored = {
        "encoder.weight": w.W_enc.T,
        "encoder.bias": w.b_enc,
        "decoder.weight": w.W_dec.T,
        "decoder.bias": w.b_dec,
        "log_jumprelu_threshold": w.threshold.log(),
    }
    tensors_file(tmp_path / "sae_weights.safetensors", stored)
    config = {
        "d_model": D_IN,
        "hook_point_in": "blocks.1.hook_resid_post",
        "act_fn": "jumprelu",
        "sparsity_include_decoder_norm": False,
        "norm_activation": "dataset-wise",
    }
    write_json(tmp_path / "config.json", config)
    with pytest.raises(DictionaryError, match=r"no mean norm of .* in the file; give scale="):
        load_dictionary(tmp_path)
    codes = jump(0.5 * w.x @ w.W_enc + w.b_enc, w.threshold)
    check(load_dictionary(tmp_path, scale=0.5), w.x, codes, (codes @ w.W_dec + w.b_dec) / 0.5)


# ViT-Prisma


def pickled_config(monkeypatch: pytest.MonkeyPatch, **entries: Any) -> object:
    """An object that pickles as the library's config class, as its own files hold it."""
    import sys
    import types

    name = "vit_prisma.sae.config"
    module = types.ModuleType(name)
    config_class = type("VisionModelSAERunnerConfig", (), {"__module__": name})
    module.VisionModelSAERunnerConfig = config_class  # type: ignore[attr-defined]
    for part in ("vit_prisma", "vit_prisma.sae"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    config = config_class()
    config.__dict__.update({"_dtype": torch.float32, "hook_point_layer": 9, "layer_subtype": "hook_mlp_out"} | entries)
    return config


def prisma_state(w: Weights) -> dict[str, Tensor]:
    return {"W_enc": w.W_enc, "W_dec": w.W_dec, "b_enc": w.b_enc, "b_dec": w.b_dec}


@SIZES
def test_vit_prisma_config_inside_the_pickle(d_sae: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    w = Weights(d_sae)
    with monkeypatch.context() as patch:
        config = pickled_config(patch, activation_fn_str="topk", activation_fn_kwargs={"k": K}, architecture="standard")
        torch.save({"cfg": config, "state_dict": prisma_state(w)}, tmp_path / "n_images_2600058.pt")
    torch.save(torch.zeros(d_sae), tmp_path / "log_feature_sparsity.pt")
    dictionary = load_dictionary(tmp_path)
    codes = topk(w.pre(centred=True))
    check(dictionary, w.x, codes, codes @ w.W_dec + w.b_dec)
    assert dictionary.provenance["hookpoint"] == "visual.blocks.9.hook_mlp_out"


@SIZES
def test_vit_prisma_config_beside_the_weights(d_sae: int, tmp_path: Path) -> None:
    w = Weights(d_sae)
    torch.save(prisma_state(w), tmp_path / "weights.pt")
    config = {"architecture": "standard", "activation_fn_str": "relu", "activation_fn_kwargs": {}}
    write_json(tmp_path / "config.json", config)
    codes = w.pre(centred=True).relu()
    check(load_dictionary(tmp_path), w.x, codes, codes @ w.W_dec + w.b_dec)
    write_json(tmp_path / "config.json", config | {"normalize_activations": "layer_norm"})
    x, back = layer_norm(w.x)
    codes = ((x - w.b_dec) @ w.W_enc + w.b_enc).relu()
    check(load_dictionary(tmp_path), w.x, codes, back(codes @ w.W_dec + w.b_dec))
    write_json(tmp_path / "config.json", config | {"normalize_activations": "constant_norm_rescale"})
    with pytest.raises(DictionaryError, match=r"normalises every vector by itself \(constant_norm_rescale\)"):
        load_dictionary(tmp_path)


def test_vit_prisma_transcoder_has_a_centre_of_its_own(tmp_path: Path) -> None:
    w, skip, b_out = Weights(10), torch.randn(5, D_IN), torch.randn(5)
    state = prisma_state(w) | {"W_dec": w.W_dec[:, :5], "b_dec_out": b_out, "W_skip": skip}
    torch.save(state, tmp_path / "weights.pt")
    config = {"hook_point_layer": 9, "layer_subtype": "hook_resid_mid", "is_transcoder": True}
    config |= {"out_hook_point_layer": 10, "layer_out_subtype": "hook_mlp_out"}
    write_json(tmp_path / "config.json", {"activation_fn_str": "relu", **config})
    codes = w.pre(centred=True).relu()
    dictionary = load_dictionary(tmp_path)
    check(dictionary, w.x, codes, codes @ w.W_dec[:, :5] + b_out)
    assert ends_of(dictionary) == ("visual.blocks.9.hook_resid_mid", "visual.blocks.10.hook_mlp_out")
    torch.testing.assert_close(dictionary(w.x), codes @ w.W_dec[:, :5] + b_out + w.x @ skip.T, rtol=1e-5, atol=1e-5)


@SIZES
def test_vit_prisma_gated(d_sae: int, tmp_path: Path) -> None:
    w, gain, b_gate = Weights(d_sae), Weights(d_sae).b_enc, Weights(d_sae).threshold - 0.5
    gated = prisma_state(w) | {"r_mag": gain, "b_mag": w.b_enc, "b_gate": b_gate}
    torch.save(gated, tmp_path / "weights.pt")
    write_json(tmp_path / "config.json", {"architecture": "gated", "activation_fn_str": "relu"})
    pi = (w.x - w.b_dec) @ w.W_enc
    codes = (gain.exp() * pi + w.b_enc).relu() * (pi + b_gate > 0)
    check(load_dictionary(tmp_path), w.x, codes, codes @ w.W_dec + w.b_dec)


def test_other_classes_in_a_pickle_are_refused(tmp_path: Path) -> None:
    torch.save({"cfg": Path("anything"), "state_dict": prisma_state(Weights(10))}, tmp_path / "weights.pt")
    with pytest.raises(DictionaryError, match=r"more than tensors and plain values \(pathlib.*it is refused"):
        load_dictionary(tmp_path)


# SAELens before version 6


def write_old_saelens(folder: Path, w: Weights, config: dict[str, Any], **tensors: Tensor) -> None:
    weights = {"W_enc": w.W_enc, "W_dec": w.W_dec, "b_enc": w.b_enc, "b_dec": w.b_dec}
    tensors_file(folder / "sae_weights.safetensors", weights | tensors)
    flat = {"d_in": D_IN, "d_sae": len(w.b_enc), "dtype": "torch.float32", "device": "cpu"}
    write_json(
        folder / "cfg.json", flat | {"model_name": "gpt2-small", "hook_point": "blocks.8.hook_resid_pre"} | config
    )


@SIZES
def test_saelens_before_6_calls_a_topk_standard(d_sae: int, tmp_path: Path) -> None:
    w = Weights(d_sae)
    settings = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    write_old_saelens(tmp_path, w, settings)
    dictionary = load_dictionary(tmp_path)
    codes = topk(w.pre(centred=True))
    check(dictionary, w.x, codes, codes @ w.W_dec + w.b_dec)
    assert dictionary.provenance["hookpoint"] == "blocks.8.hook_resid_pre"
    assert dictionary.provenance["saelens"]["model_name"] == "gpt2-small"


@SIZES
def test_saelens_before_6_without_centring_and_with_factors(d_sae: int, tmp_path: Path) -> None:
    w, factors = Weights(d_sae), Weights(d_sae).threshold
    settings = {"activation_fn_str": "relu", "apply_b_dec_to_input": False, "finetuning_scaling_factor": True}
    write_old_saelens(tmp_path, w, settings, scaling_factor=factors)
    codes = w.pre(centred=False).relu()
    check(load_dictionary(tmp_path), w.x, codes, codes * factors @ w.W_dec + w.b_dec)


def test_saelens_before_6_scaled_inputs_ask_for_the_scale(tmp_path: Path) -> None:
    w = Weights(10)
    write_old_saelens(tmp_path, w, {"activation_fn_str": "relu", "normalize_activations": True})
    with pytest.raises(DictionaryError, match=r"mean norm sqrt\(d_in\).*Give scale="):
        load_dictionary(tmp_path)
    codes = ((2 * w.x - w.b_dec) @ w.W_enc + w.b_enc).relu()
    check(load_dictionary(tmp_path, scale=2), w.x, codes, (codes @ w.W_dec + w.b_dec) / 2)


def test_saelens_transcoders_say_where_they_write(tmp_path: Path) -> None:
    w = Weights(10)
    ends = {"hook_point": "blocks.8.ln2.hook_normalized", "hook_name_out": "blocks.8.hook_mlp_out"}
    write_old_saelens(tmp_path, w, {"architecture": "transcoder", **ends})
    dictionary = load_dictionary(tmp_path)
    assert ends_of(dictionary) == ("blocks.8.ln2.hook_normalized", "blocks.8.hook_mlp_out")
    io.export_dictionary(dictionary, tmp_path / "again", "saelens")
    assert ends_of(load_dictionary(tmp_path / "again")) == ends_of(dictionary)
    assert (
        json.loads((tmp_path / "again" / "cfg.json").read_text())["metadata"]["hook_name_out"] == ends_of(dictionary)[1]
    )
    dictionary.provenance = {"target_sites": [{"hookpoint": "a"}, {"hookpoint": "b"}]}
    io.export_dictionary(dictionary, tmp_path / "ours", "saelens")
    assert ends_of(load_dictionary(tmp_path / "ours"))[1] == "a + b"
    write_old_saelens(tmp_path / "autoencoder", w, ends)
    assert ends_of(load_dictionary(tmp_path / "autoencoder"))[1] is None


# sparsify before it dropped `signed`


@SIZES
def test_sparsify_signed_keeps_magnitudes_with_their_sign(d_sae: int, tmp_path: Path) -> None:
    w = Weights(d_sae)
    tensors = {"encoder.weight": w.W_enc.T, "encoder.bias": w.b_enc, "W_dec": w.W_dec, "b_dec": w.b_dec}
    tensors_file(tmp_path / "layers.7" / "sae.safetensors", tensors)
    write_json(tmp_path / "layers.7" / "cfg.json", {"d_in": D_IN, "num_latents": d_sae, "k": K, "signed": True})
    pre = w.pre(centred=True)
    kept = pre.abs().topk(K, dim=1).indices
    codes = torch.zeros_like(pre).scatter_(1, kept, pre.gather(1, kept))
    dictionary = load_dictionary(tmp_path / "layers.7")
    check(dictionary, w.x, codes, codes @ w.W_dec + w.b_dec)
    assert dictionary.provenance["hookpoint"] == "blocks.7.hook_resid_post"


@pytest.mark.parametrize(
    ("folder", "ends"),
    [
        ("layers.7.mlp", ("blocks.7.mlp.hook_in", "blocks.7.hook_mlp_out")),
        ("transformer.h.7", ("blocks.7.hook_resid_pre", "blocks.7.hook_resid_post")),
        ("layers.7.attn", (None, None)),
    ],
)
def test_sparsify_transcoders_stand_for_the_module_they_are_named_after(
    folder: str, ends: tuple[str | None, str | None], tmp_path: Path
) -> None:
    w = Weights(10)
    tensors = {"encoder.weight": w.W_enc.T, "encoder.bias": w.b_enc, "W_dec": w.W_dec, "b_dec": w.b_dec}
    tensors_file(tmp_path / folder / "sae.safetensors", tensors)
    for transcode in (True, False):
        settings = {"d_in": D_IN, "num_latents": 10, "k": K, "transcode": transcode}
        write_json(tmp_path / folder / "cfg.json", settings)
        dictionary = load_dictionary(tmp_path / folder)
        assert dictionary.is_transcoder == transcode
        assert ends_of(dictionary) == (ends if transcode else (ends[1], None))


# What several formats share


def test_half_precision_is_widened(tmp_path: Path) -> None:
    w = Weights(10)
    rounded = {name: getattr(w, name).bfloat16() for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
    write_old_saelens(tmp_path, w, {}, **rounded)
    dictionary = load_dictionary(tmp_path)
    assert dictionary.W_dec.dtype == torch.float32
    codes = ((w.x - rounded["b_dec"].float()) @ rounded["W_enc"].float() + rounded["b_enc"].float()).relu()
    check(dictionary, w.x, codes, codes @ rounded["W_dec"].float() + rounded["b_dec"].float())


def damage(change: Callable[[dict[str, Any]], Any], without: str = "") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        config: dict[str, Any] = {"architecture": "standard", "metadata": {}}
        change(config)
        w = Weights(10)
        write_json(folder / "cfg.json", config)
        tensors = {"W_enc": w.W_enc, "W_dec": w.W_dec, "b_enc": w.b_enc, "b_dec": w.b_dec}
        tensors.pop(without, None)
        tensors_file(folder / "sae_weights.safetensors", tensors)

    return write


def empty(folder: Path) -> None:
    folder.mkdir()


def strange(folder: Path) -> None:
    write_json(folder / "model.json", {})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (empty, r"an empty folder\. No dictionary that is known: sae \(dictionary\.json"),
        (strange, r"a folder with model\.json\. No dictionary that is known: .*sparsify \(cfg\.json, sae\.safetens"),
        (damage(lambda config: config.update(architecture="standart")), "'standart'. Did you mean 'standard'"),
        (damage(lambda config: config.update(architecture="topk")), "the config names no k"),
        (damage(lambda config: None, without="b_dec"), r"tensor b_dec is missing\. .*Allowed: W_dec, W_enc, b_enc"),
    ],
)
def test_errors_say_what_was_found_and_what_is_known(
    write: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "source")
    with pytest.raises(DictionaryError, match=message):
        load_dictionary(tmp_path / "source")


def test_hints_that_have_no_meaning_are_refused(tmp_path: Path) -> None:
    write_old_saelens(tmp_path, Weights(10), {})
    with pytest.raises(DictionaryError, match=r"saelens takes no 'k'\. Allowed: scale"):
        load_dictionary(tmp_path, k=3)
    with pytest.raises(DictionaryError, match="'k' has no meaning"):
        load_dictionary("builtin:stdlib-1l/blocks.0.mlp.hook_post", k=3)


def test_files_of_two_libraries_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_old_saelens(tmp_path, Weights(10), {})
    tensors_file(tmp_path / "sae.safetensors", {"b_dec": torch.zeros(3)})
    with pytest.raises(DictionaryError, match="several libraries: saelens, sparsify"):
        formats.detect(tmp_path)


def test_an_overcomplete_state_dict_asks_for_what_it_lacks(tmp_path: Path) -> None:
    w = Weights(10)
    state = {
        "encoder.final_block.0.weight": w.W_enc.T,
        "encoder.final_block.0.bias": w.b_enc,
        "dictionary._weights": torch.nn.functional.normalize(w.W_dec),
        "dictionary.multiplier": torch.tensor(0.3),
    }
    torch.save(state, tmp_path / "sae.pt")
    with pytest.raises(DictionaryError, match="does not save the kind"):
        load_dictionary(tmp_path)
    with pytest.raises(DictionaryError, match="does not save the k "):
        load_dictionary(tmp_path, kind="topk")
    codes = topk(w.x @ w.W_enc + w.b_enc)
    dictionary = load_dictionary(tmp_path, kind="topk", k=K)
    check(dictionary, w.x, codes, codes @ state["dictionary._weights"] * state["dictionary.multiplier"].exp())
    torch.save(state | {"dictionary._weights": w.W_dec}, tmp_path / "sae.pt")
    with pytest.raises(DictionaryError, match="Which of the library's normalisations applies"):
        load_dictionary(tmp_path, kind="topk", k=K)
    torch.save(state | {"encoder.mlp_blocks.0.0.weight": w.W_enc}, tmp_path / "sae.pt")
    with pytest.raises(DictionaryError, match="a dictionary of ours has a linear one"):
        load_dictionary(tmp_path, kind="topk", k=K)


def test_a_dictionary_learning_checkpoint_without_config_asks_which_it_is(tmp_path: Path) -> None:
    w = Weights(10)
    state = {
        "encoder.weight": w.W_enc.T,
        "encoder.bias": w.b_enc,
        "decoder.weight": w.W_dec.T,
        "b_dec": w.b_dec,
        "k": torch.tensor(K, dtype=torch.int),
        "threshold": torch.tensor(0.4),
    }
    checkpoint = tmp_path / "trainer_0" / "checkpoints" / "ae_100.pt"
    checkpoint.parent.mkdir(parents=True)
    torch.save(state, checkpoint)
    with pytest.raises(DictionaryError, match='Give kind="topk" or kind="batch_topk"'):
        load_dictionary(checkpoint)
    for kind, codes in (("topk", topk(w.pre(True))), ("batch_topk", jump(w.pre(True), 0.4))):
        check(load_dictionary(checkpoint, kind=kind), w.x, codes, codes @ w.W_dec + w.b_dec)
    write_json(tmp_path / "trainer_0" / "config.json", {"trainer": {"dict_class": "AutoEncoderTopK", "k": K}})
    for early in (False, True):  # early files have neither k nor threshold
        torch.save(
            {name: tensor for name, tensor in state.items() if not early or "." in name or name == "b_dec"}, checkpoint
        )
        codes = topk(w.pre(True))
        check(load_dictionary(checkpoint), w.x, codes, codes @ w.W_dec + w.b_dec)
