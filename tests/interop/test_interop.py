"""Both ways, with the peer libraries themselves: they load what we write, we load what they write.

Runs in the environment of scripts/interop_environment.sh only: scripts/test_interop.sh.
"""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae.dictionaries import registry
from sae.dictionaries.base import Dictionary
from sae.dictionaries.formats import saelens, sparsify
from sae.dictionaries.io import export_dictionary, load_dictionary
from sae.errors import DictionaryError
from scripts import peers
from tests.interop import peer_files

REFUSED = {
    "saelens-norm-rescale": peer_files.saelens("standard", "relu", normalize_activations="constant_norm_rescale"),
    "saelens-matching-pursuit": peer_files.saelens("matching_pursuit", "matching_pursuit"),
    "sparsify-groupmax": peer_files.sparsify("groupmax", activation="groupmax"),
    "llamascopium-batchtopk": peer_files.llamascopium("batchtopk", "dataset-wise"),
    "llamascopium-token-wise": peer_files.llamascopium("relu", "token-wise"),
    "overcomplete-quantised": peer_files.overcomplete("QSAE", "relu"),
}


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("d_sae", peer_files.SIZES)
@pytest.mark.parametrize("name", peer_files.CASES)
def test_we_load_what_they_write(name: str, d_sae: int, tmp_path: Path) -> None:
    case = peer_files.CASES[name](d_sae, tmp_path / name)
    dictionary = load_dictionary(tmp_path / name, **case.hints)
    codes = dictionary.encode(case.x)
    close(codes.dense(), case.codes)
    close(dictionary(case.x), case.x_hat)


@pytest.mark.parametrize("name", REFUSED)
def test_what_we_cannot_represent_is_refused(name: str, tmp_path: Path) -> None:
    case = REFUSED[name](12, tmp_path / name)
    with pytest.raises(DictionaryError):
        load_dictionary(tmp_path / name, **case.hints)


def ours(kind: str, d_sae: int, d_out: int | None = None, **switches: bool) -> Dictionary:
    """A dictionary of random tensors; thresholds are positive, one of them infinite."""
    fields = {field.name for field in dataclasses.fields(registry.dictionary_type(kind).config_type)}
    needed = {"k": peer_files.K, "n_points": 12, "prefixes": [0.5, 1.0], "target_l0": None}
    settings = {name: value for name, value in needed.items() if name in fields}
    config = registry.decode_config({"kind": kind, "d_sae": d_sae, **settings, **switches})
    dictionary = registry.make_dictionary(config, peer_files.D_IN, d_out)
    generator = torch.Generator().manual_seed(d_sae)
    with torch.no_grad():
        for name, tensor in dictionary.tensors().items():
            if name != "variance":
                values = torch.randn(tensor.shape, generator=generator) * 0.6
                tensor.copy_(values.abs() if "threshold" in name else values)
                if "threshold" in name:
                    tensor[0] = torch.inf
        if kind == "matching_pursuit":
            dictionary.W_enc_rows.copy_(dictionary.W_dec)
    dictionary.provenance = {"subject": "language:toy", "hookpoint": "blocks.1.hook_resid_post"}
    if d_out is not None:
        dictionary.provenance["target_hookpoint"] = "blocks.1.hook_mlp_out"
    return dictionary.eval()


def check_saelens(dictionary: Dictionary, x: Tensor, folder: Path) -> None:
    export_dictionary(dictionary, folder, "saelens")
    loaded = peers.load("sae_lens").SAE.load_from_disk(folder)
    codes = dictionary.encode(x)
    assert (codes.dense() != 0).any()
    close(loaded.encode(x), codes.dense())
    close(loaded(x), dictionary(x))
    assert loaded.cfg.metadata.hook_name == "blocks.1.hook_resid_post" and loaded.cfg.metadata.model_name == "toy"
    assert loaded.cfg.metadata.hook_name_out == dictionary.provenance.get("target_hookpoint")


def check_sparsify(dictionary: Dictionary, x: Tensor, folder: Path) -> None:
    export_dictionary(dictionary, folder, "sparsify")
    loaded = peers.load("sparsify").SparseCoder.load_from_disk(folder)
    encoded, codes = loaded.encode(x), dictionary.encode(x)
    close(torch.zeros(len(x), dictionary.d_sae).scatter_(1, encoded.top_indices, encoded.top_acts), codes.dense())
    close(loaded(x).sae_out, dictionary(x))


@pytest.mark.parametrize("d_sae", peer_files.SIZES)
@pytest.mark.parametrize("kind", [kind for kind in registry.kinds() if kind in saelens.ARCHITECTURES])
def test_saelens_loads_what_we_write(kind: str, d_sae: int, tmp_path: Path) -> None:
    check_saelens(ours(kind, d_sae), peer_files.inputs(d_sae), tmp_path)


@pytest.mark.parametrize("d_out", [5, 6])
@pytest.mark.parametrize("skip", [False, True])
def test_saelens_loads_our_transcoders(d_out: int, skip: bool, tmp_path: Path) -> None:
    check_saelens(ours("batch_topk", 6, d_out, skip=skip), peer_files.inputs(6), tmp_path)


def test_saelens_loads_our_layer_norm(tmp_path: Path) -> None:
    check_saelens(ours("topk", 10, layer_norm=True), peer_files.inputs(10), tmp_path)


@pytest.mark.parametrize("d_sae", peer_files.SIZES)
@pytest.mark.parametrize("kind", [kind for kind in registry.kinds() if kind in sparsify.KINDS])
def test_sparsify_loads_what_we_write(kind: str, d_sae: int, tmp_path: Path) -> None:
    check_sparsify(ours(kind, d_sae), peer_files.inputs(d_sae), tmp_path)


@pytest.mark.parametrize("skip", [False, True])
def test_sparsify_loads_our_transcoders(skip: bool, tmp_path: Path) -> None:
    check_sparsify(ours("topk", 10, peer_files.D_IN, skip=skip), peer_files.inputs(10), tmp_path)


def test_a_pickled_module_is_refused_and_named(tmp_path: Path) -> None:
    model = peers.load("overcomplete.sae").TopKSAE(6, 10, top_k=3)
    torch.save(model, tmp_path / "sae.pt")
    with pytest.raises(DictionaryError, match=r"overcomplete\.sae\.topk_sae\.TopKSAE.*refused"):
        load_dictionary(tmp_path, kind="topk", k=3)
