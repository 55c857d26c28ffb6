"""Dictionaries of random weights, written by the peer libraries' own save code, with what those libraries make of them.

Run as a script it writes the fixtures of the default test run: python -m tests.interop.peer_files FOLDER.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from scripts import peers

D_IN, D_OUT, K = 6, 5, 3
SIZES = (6, 10)
"""Numbers of latents; with as many as coordinates, a transposed matrix fits just as well."""


@dataclass
class Case:
    """A saved dictionary: inputs, codes and reconstruction by the library itself, and what its file does not say."""

    x: Tensor
    codes: Tensor
    x_hat: Tensor
    kind: str
    hints: dict[str, Any] = field(default_factory=dict)


@torch.no_grad()
def randomise(module: torch.nn.Module, seed: int = 0) -> Any:
    """Fill every parameter with random values; thresholds and norms keep a sensible sign."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)
        if "threshold" in name and "log" not in name and name != "thresholds":
            parameter.abs_()
    return module


def inputs(d_sae: int) -> Tensor:
    return torch.randn(40, D_IN, generator=torch.Generator().manual_seed(d_sae)) * 1.5


def case(kind: str, x: Tensor, codes: Tensor, x_hat: Tensor, hints: dict[str, Any] | None = None) -> Case:
    return Case(x, codes.detach().clone(), x_hat.detach().clone(), kind, hints or {})


def saelens(architecture: str, kind: str, **settings: Any) -> Callable[[int, Path], Case]:
    def write(d_sae: int, folder: Path) -> Case:
        registry = peers.load("sae_lens.registry")
        sae_class, config_class = registry.get_sae_class(architecture)
        if "transcoder" in architecture:
            settings.setdefault("apply_b_dec_to_input", False)
        metadata = peers.load("sae_lens.saes.sae").SAEMetadata(model_name="toy", hook_name="blocks.1.hook_resid_post")
        sae = randomise(sae_class(config_class(d_in=D_IN, d_sae=d_sae, metadata=metadata, **settings)))
        sae.save_model(folder)
        x = inputs(d_sae)
        codes = sae.encode(x)
        hints = {"scale": 1.0} if settings.get("normalize_activations") == "expected_average_only_in" else {}
        return case(kind, x, codes, sae(x) if "transcoder" in architecture else sae.decode(codes), hints)

    return write


def saelens_trained(architecture: str) -> Callable[[int, Path], Case]:
    """Written by what SAELens saves for use when training has ended: a threshold in place of the batch's top k."""

    def write(d_sae: int, folder: Path) -> Case:
        registry = peers.load("sae_lens.registry")
        sae_class, config_class = registry.get_sae_training_class(architecture)
        settings = {"matryoshka_widths": [d_sae // 2, d_sae]} if "matryoshka" in architecture else {}
        sae = randomise(sae_class(config_class(d_in=D_IN, d_sae=d_sae, k=K, **settings)))
        sae.topk_threshold.fill_(0.4)
        sae.save_inference_model(folder)
        loaded = peers.load("sae_lens").SAE.load_from_disk(folder)
        x = inputs(d_sae)
        codes = loaded.encode(x)
        return case("jumprelu", x, codes, loaded.decode(codes))

    return write


def sparsify(kind: str, **settings: Any) -> Callable[[int, Path], Case]:
    def write(d_sae: int, folder: Path) -> Case:
        library = peers.load("sparsify")
        coder = randomise(library.SparseCoder(D_IN, library.SparseCoderConfig(num_latents=d_sae, k=K, **settings)))
        coder.save_to_disk(folder)
        x = inputs(d_sae)
        encoded = coder.encode(x)
        codes = torch.zeros(len(x), d_sae).scatter_(1, encoded.top_indices, encoded.top_acts)
        return case(kind, x, codes, coder(x).sae_out)

    return write


def dictionary_learning(trainer: str, module: str, kind: str, **settings: Any) -> Callable[[int, Path], Case]:
    """The state dict and the config that its `trainSAE` saves; that function itself needs a language model."""

    def write(d_sae: int, folder: Path) -> Case:
        given = dict(settings)
        if "dict_class" in given:
            given["dict_class"] = getattr(peers.load("dictionary_learning.dictionary"), given["dict_class"])
        made = getattr(peers.load(f"dictionary_learning.trainers.{module}"), trainer)(
            steps=10_000,
            activation_dim=D_IN,
            dict_size=d_sae,
            layer=3,
            lm_name="toy",
            device="cpu",
            submodule_name="resid_post_layer_3",
            **given,
        )
        randomise(made.ae)
        if hasattr(made.ae, "threshold") and kind in ("batch_topk", "matryoshka"):
            made.ae.threshold.fill_(0.4)
        save_dictionary_learning(made, folder)
        x = inputs(d_sae)
        codes = made.ae.encode(x)
        return case(kind, x, codes, made.ae.decode(codes))

    return write


def dictionary_learning_backup(d_sae: int, folder: Path) -> Case:
    """What `ae.pt` is while a run on scaled inputs goes on: the whole trainer, its biases still in scaled units."""
    module = peers.load("dictionary_learning.trainers.batch_top_k")
    made = module.BatchTopKTrainer(10_000, D_IN, d_sae, K, 3, "toy", device="cpu")
    randomise(made.ae)
    made.ae.threshold.fill_(0.2)
    folder.mkdir(parents=True)
    backup = {
        "step": 5,
        "ae": made.ae.state_dict(),
        "optimizer": made.optimizer.state_dict(),
        "config": made.config,
        "norm_factor": 2.5,
    }
    torch.save(backup, folder / "ae.pt")
    made.ae.scale_biases(2.5)
    x = inputs(d_sae)
    codes = made.ae.encode(x)
    return case("batch_topk", x, codes, made.ae.decode(codes))


def save_dictionary_learning(trainer: Any, folder: Path) -> None:
    folder.mkdir(parents=True)
    torch.save({name: tensor.cpu() for name, tensor in trainer.ae.state_dict().items()}, folder / "ae.pt")
    config = {"trainer": trainer.config, "buffer": {"io": "out", "ctx_len": 128, "d_submodule": D_IN}}
    (folder / "config.json").write_text(json.dumps(config, indent=4))


def overcomplete(name: str, kind: str, **settings: Any) -> Callable[[int, Path], Case]:
    def write(d_sae: int, folder: Path) -> Case:
        given = dict(settings)
        if name.startswith("RA"):
            given["points"] = torch.randn(12, D_IN, generator=torch.Generator().manual_seed(1))
        model = randomise(getattr(peers.load("overcomplete.sae"), name)(D_IN, d_sae, **given))
        hints: dict[str, Any] = {} if kind == "jumprelu" else {"kind": kind}
        if kind in ("topk", "batch_topk"):
            hints["k"] = K
        if kind == "batch_topk":
            hints["threshold"] = 0.4
            model.running_threshold = torch.tensor(0.4)
        model.eval()
        folder.mkdir(parents=True)
        torch.save(model.state_dict(), folder / "sae.pt")
        x = inputs(d_sae)
        codes = model.encode(x)[1]
        return case(kind, x, codes, model.decode(codes), hints)

    return write


def llamascopium(kind: str, norm: str, out: str = "hook_resid_post", **settings: Any) -> Callable[[int, Path], Case]:
    def write(d_sae: int, folder: Path) -> Case:
        library, hook, hook_out = peers.load("llamascopium.models.sae"), "blocks.2.hook_resid_post", f"blocks.2.{out}"
        config = library.SAEConfig(
            hook_point_in=hook,
            hook_point_out=hook_out,
            d_model=D_IN,
            expansion_factor=d_sae / D_IN,
            act_fn=kind,
            top_k=K,
            norm_activation=norm,
            device="cpu",
            dtype=torch.float32,
            **settings,
        )
        model = randomise(library.SparseAutoEncoder(config))
        model.set_dataset_average_activation_norm({hook: 1.7} | ({hook_out: 0.6} if hook_out != hook else {}))
        model.save_pretrained(folder)
        config.save_hyperparameters(folder)
        x = inputs(d_sae)
        codes = model.encode(x * model.compute_norm_factor(x, hook))
        x_hat = model.decode(codes) / model.compute_norm_factor(x, hook_out)
        # Ranked by what they add to the output, latents are ours only with decoder rows of norm 1.
        rescaled = kind == "topk" and config.sparsity_include_decoder_norm
        return case(kind, x, codes * model.decoder_norm() if rescaled else codes, x_hat)

    return write


CASES: dict[str, Callable[[int, Path], Case]] = {
    "saelens-standard": saelens("standard", "relu"),
    "saelens-standard-undercentred": saelens("standard", "relu", apply_b_dec_to_input=False),
    "saelens-standard-scaled": saelens("standard", "relu", normalize_activations="expected_average_only_in"),
    "saelens-standard-normalised": saelens("standard", "relu", normalize_activations="layer_norm"),
    "saelens-transcoder": saelens("transcoder", "relu", d_out=D_OUT),
    "saelens-skip-transcoder": saelens("skip_transcoder", "relu", d_out=D_OUT),
    "saelens-jumprelu-transcoder": saelens("jumprelu_transcoder", "jumprelu", d_out=D_OUT),
    "saelens-jumprelu-skip-transcoder": saelens("jumprelu_skip_transcoder", "jumprelu", d_out=D_IN),
    "saelens-topk": saelens("topk", "topk", k=K),
    "saelens-topk-rescaled": saelens("topk", "topk", k=K, rescale_acts_by_decoder_norm=True),
    "saelens-abstopk": saelens("abstopk", "abs_topk", k=K),
    "saelens-jumprelu": saelens("jumprelu", "jumprelu"),
    "saelens-jumprelu-undercentred": saelens("jumprelu", "jumprelu", apply_b_dec_to_input=False),
    "saelens-gated": saelens("gated", "gated"),
    "saelens-gated-undercentred": saelens("gated", "gated", apply_b_dec_to_input=False),
    "saelens-pursuit": saelens(
        "matching_pursuit",
        "matching_pursuit",
        residual_threshold=0.0,
        max_iterations=K,
        stop_on_duplicate_support=False,
    ),
    "saelens-batchtopk": saelens_trained("batchtopk"),
    "saelens-matryoshka": saelens_trained("matryoshka_batchtopk"),
    "sparsify-topk": sparsify("topk"),
    "sparsify-transcoder": sparsify("topk", transcode=True),
    "sparsify-skip-transcoder": sparsify("topk", transcode=True, skip_connection=True),
    "dictionary_learning-standard": dictionary_learning("StandardTrainer", "standard", "relu"),
    "dictionary_learning-new": dictionary_learning(
        "StandardTrainerAprilUpdate", "standard", "relu", dict_class="AutoEncoderNew"
    ),
    "dictionary_learning-topk": dictionary_learning("TopKTrainer", "top_k", "topk", k=K),
    "dictionary_learning-batchtopk": dictionary_learning("BatchTopKTrainer", "batch_top_k", "batch_topk", k=K),
    "dictionary_learning-backup": dictionary_learning_backup,
    "dictionary_learning-gated": dictionary_learning("GatedSAETrainer", "gdm", "gated"),
    "dictionary_learning-jumprelu": dictionary_learning("JumpReluTrainer", "jumprelu", "jumprelu"),
    "dictionary_learning-matryoshka": dictionary_learning(
        "MatryoshkaBatchTopKTrainer", "matryoshka_batch_top_k", "matryoshka", k=K, group_fractions=[0.5, 0.5]
    ),
    "overcomplete-sae": overcomplete("SAE", "relu"),
    "overcomplete-topk": overcomplete("TopKSAE", "topk", top_k=K),
    "overcomplete-batchtopk": overcomplete("BatchTopKSAE", "batch_topk", top_k=K),
    "overcomplete-jump": overcomplete("JumpSAE", "jumprelu"),
    "overcomplete-archetypal": overcomplete("RATopKSAE", "topk", top_k=K),
    "llamascopium-relu": llamascopium("relu", "dataset-wise"),
    "llamascopium-transcoder": llamascopium("relu", "dataset-wise", out="hook_mlp_out"),
    "llamascopium-topk": llamascopium("topk", "dataset-wise"),
    "llamascopium-jumprelu": llamascopium("jumprelu", "inference"),
    "llamascopium-jumprelu-scaled": llamascopium("jumprelu", "dataset-wise", sparsity_include_decoder_norm=False),
}


def write_fixtures(root: Path) -> None:
    """Write every case in every size: its folder, and beside it inputs, codes and reconstruction."""
    for name, write in CASES.items():
        for d_sae in SIZES:
            made = write(d_sae, root / f"{name}-{d_sae}")
            tensors = {"x": made.x, "codes": made.codes, "x_hat": made.x_hat}
            about = {"kind": made.kind, "hints": json.dumps(made.hints)}
            save_file(
                {key: tensor.contiguous() for key, tensor in tensors.items()},
                root / f"{name}-{d_sae}.safetensors",
                about,
            )


if __name__ == "__main__":
    write_fixtures(Path(sys.argv[1]))
